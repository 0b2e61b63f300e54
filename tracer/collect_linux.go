//go:build amd64 || arm64

package tracer

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/seccompgen/seccompgen/profile"
)

// This file takes recordings out of the kernel.

// entries returns what a map holds of the keys that belong to one recording.
func entries[V any, K comparable](m *ebpf.Map, of func(K) bool) (map[K]V, error) {
	all := map[K]V{}
	var key K
	var value V
	it := m.Iterate()
	for it.Next(&key, &value) {
		if of(key) {
			all[key] = value
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", m, err)
	}
	return all, nil
}

func forget[V any, K comparable](m *ebpf.Map, of func(K) bool) error {
	all, err := entries[V](m, of)
	for key := range all {
		if err := m.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("clear %s: %w", m, err)
		}
	}
	return err
}

// Collect ends the recording of a container, hands it to keep, and forgets it once keep has returned nil: a recording
// that could not be kept can be collected again.
func Collect(id string, keep func(*profile.Recording) error) error {
	return enter(false, func(s *set, metas map[uint32]meta) error {
		slot, m, ok := find(metas, id)
		if !ok {
			return notRecording(id)
		}
		state, err := s.settle(slot, m)
		if err != nil {
			return err
		}
		r, err := s.recording(slot, m, state)
		if err != nil {
			return err
		}
		if err := keep(r); err != nil {
			return err
		}
		delete(metas, slot)
		return s.release(slot, m, metas)
	})
}

// settle stops a recording when its tasks have gone. They normally have: runtimes call poststop after the last one.
// A task that is still on its way out gets a second; one that stays is counted as alive, and shows in the recording.
func (s *set) settle(slot uint32, m meta) (recorderSlot, error) {
	for end := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		state, err := s.stop(slot, m)
		if err != nil || state.Alive == 0 || time.Now().After(end) {
			return state, err
		}
		if s.misses, err = misses(); err != nil { // of what the task did meanwhile
			return state, err
		}
	}
}

// Peek returns the evidence so far of a recording that goes on.
func Peek(id string) (*profile.Recording, error) {
	var r *profile.Recording
	err := enter(false, func(s *set, metas map[uint32]meta) error {
		slot, m, ok := find(metas, id)
		if !ok {
			return notRecording(id)
		}
		var state recorderSlot
		if err := s.Slots.Lookup(slot, &state); err != nil {
			return fmt.Errorf("read slot %d: %w", slot, err)
		}
		if state.Boundary != 0 && state.Alive == 0 && m.Last == nil && len(s.misses) > 0 {
			m.Last = s.misses
			if err := s.keep(slot, m); err != nil {
				return err
			}
		}
		var err error
		r, err = s.recording(slot, m, state)
		return err
	})
	return r, err
}

// recording turns what the kernel kept into a recording.
func (s *set) recording(slot uint32, m meta, state recorderSlot) (*profile.Recording, error) {
	firsts, err := entries[recorderFirst](s.Firsts, m.owns(slot))
	if err != nil {
		return nil, err
	}
	unknown, err := entries[uint64](s.Unknown, m.owns(slot))
	if err != nil {
		return nil, err
	}
	denials, err := entries[recorderDenial](s.Denials, m.owns(slot))
	if err != nil {
		return nil, err
	}
	of := m.owns(slot)
	tuples, err := entries[uint8](s.Tuples, func(key recorderTuple) bool { return of(key.Call) })
	if err != nil {
		return nil, err
	}
	executables, err := entries[recorderExecutable](s.Execs, m.executed(slot))
	if err != nil {
		return nil, err
	}
	values := map[recorderCall][][]uint32{}
	for key := range tuples {
		values[key.Call] = append(values[key.Call], key.Args[:])
	}
	r := m.Options.Header
	r.ID = m.ID
	r.Complete = true
	r.Kernel = kernel()
	r.Boundary = boundaries[state.Boundary]
	r.Runs = []profile.Run{{ID: m.ID, Exit: -1}}
	r.Syscalls = []profile.Syscall{}
	for why, n := range state.Dropped {
		r.Drop(drops[why], n)
	}
	now := s.misses
	if m.Last != nil {
		now = m.Last
	}
	r.Drop(profile.DropMissed, lost(m.Misses, now, preemptible(), m.Options.Denials))
	r.Drop(profile.DropAlive, state.Alive)
	if state.Execs == 0 {
		r.Drop(profile.DropNotStarted, 1)
	}
	var j recorderJoin
	if m.Mount != 0 && s.Joins.Lookup(m.Mount, &j) == nil {
		r.Drop(profile.DropJoin, uint64(j.Lost))
	}
	r.Programs = programs(executables, uint64(state.Unnoted))
	call := func(phase, abi int, nr uint32) profile.Syscall {
		return profile.Syscall{Phase: phases[phase], ABI: abis[abi], Nr: nr, Name: profile.Name(abis[abi], nr), Runs: []string{m.ID}}
	}
	for i, word := range state.Seen {
		for ; word != 0; word &= word - 1 {
			group := i / int(recorderLimitsNR_WORDS)
			phase, abi := group/int(recorderAbiABIS), group%int(recorderAbiABIS)
			nr := uint32(i%int(recorderLimitsNR_WORDS)*64 + bits.TrailingZeros64(word))
			c := call(phase, abi, nr)
			key := recorderCall{Slot: slot, Gen: m.Gen, Nr: nr, Phase: uint8(phase), Abi: uint8(abi)}
			if f, ok := firsts[key]; ok {
				c.Callers = []profile.Caller{caller(f)}
			}
			if masks := profile.ArgumentMasks(c.ABI, nr); masks != nil {
				full := state.Done[i]>>(nr%64)&1 != 0
				c.Args = profile.NewArguments(masks, values[key], full)
			}
			r.Syscalls = append(r.Syscalls, c)
		}
	}
	counts := map[profile.Unknown]uint64{}
	for key, n := range unknown {
		if profile.Name(abis[key.Abi], key.Nr) != "" { // named, and beyond the bits: arm's private calls
			r.Syscalls = append(r.Syscalls, call(int(key.Phase), int(key.Abi), key.Nr))
			continue
		}
		counts[profile.Unknown{ABI: abis[key.Abi], Nr: key.Nr}] += n
	}
	for u, n := range counts {
		u.Count = n
		r.Unknown = append(r.Unknown, u)
	}
	keys := make([]recorderCall, 0, len(denials))
	for key := range denials {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b recorderCall) int { return cmp.Compare(denials[a].First.Time, denials[b].First.Time) })
	for i, key := range keys {
		d := denials[key]
		answer := profile.Refusal{Action: outcomes[key.Outcome], Errno: key.Err}
		theirs := m.Options.Refusals != nil && !slices.Contains(m.Options.Refusals, answer)
		if theirs && key.Own == 0 {
			r.Drop(profile.DropEntry, d.Count)
			continue
		}
		c := call(int(key.Phase), int(key.Abi), key.Nr)
		c.Denied = &profile.Denied{Action: answer.Action, Errno: answer.Errno, Count: d.Count, Args: d.Args, Order: i + 1, Own: theirs}
		c.Callers = []profile.Caller{caller(d.First)}
		r.Syscalls = append(r.Syscalls, c)
	}
	return &r, nil
}

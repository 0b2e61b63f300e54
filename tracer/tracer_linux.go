//go:build amd64 || arm64

package tracer

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

// meta is what user space keeps of a slot in use, as JSON in the map metas.
type meta struct {
	ID      string  `json:"id"`
	Pid     int     `json:"pid"`
	Gen     uint32  `json:"gen"`
	Mount   uint32  `json:"mount,omitempty"` // inode of the mount namespace; 0 if it is the host's
	Armed   int64   `json:"armed"`           // Unix time in seconds
	Options Options `json:"options"`
	// Misses are those of the programs before the recording began, see misses. Empty stands for none.
	Misses map[string]uint64 `json:"misses,omitempty"`
	// Last are those that it was found to have ended with: what was skipped later was not its own.
	Last map[string]uint64 `json:"last,omitempty"`
}

// owns returns which keys belong to the recording in a slot.
func (m meta) owns(slot uint32) func(recorderCall) bool {
	return func(key recorderCall) bool { return key.Slot == slot && key.Gen == m.Gen }
}

// executed is the same for executables.
func (m meta) executed(slot uint32) func(recorderExecutableKey) bool {
	return func(key recorderExecutableKey) bool { return key.Slot == slot && key.Gen == m.Gen }
}

// enter locks the host, opens the set, and hands over what is in use. With make it loads a missing set; without, a
// missing set is no error and s is nil. Afterwards it detaches what nobody needs any more.
func enter(create bool, do func(s *set, metas map[uint32]meta) error) (err error) {
	l, err := lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock(l)) }()
	s, err := open()
	switch {
	case errors.Is(err, fs.ErrNotExist) && create:
		if s, err = load(); err != nil {
			return errors.Join(err, tidy(nil))
		}
	case errors.Is(err, fs.ErrNotExist):
		return errors.Join(do(nil, nil), tidy(nil))
	case err != nil:
		return err
	}
	defer s.Close()
	// First of all: what follows calls bpf(2), which can cost others' programs a run.
	if s.misses, err = misses(); err != nil {
		return err
	}
	metas, err := s.readMetas()
	if err != nil {
		return err
	}
	err = do(s, metas)
	return errors.Join(err, tidy(metas))
}

func (s *set) readMetas() (map[uint32]meta, error) {
	metas := map[uint32]meta{}
	var slot uint32
	var raw recorderMeta
	it := s.Metas.Iterate()
	for it.Next(&slot, &raw) {
		text, _, _ := bytes.Cut(raw.Json[:], []byte{0})
		var m meta
		if err := json.Unmarshal(text, &m); err != nil {
			return nil, fmt.Errorf("decode what slot %d keeps: %w", slot, err)
		}
		metas[slot] = m
	}
	return metas, it.Err()
}

func find(metas map[uint32]meta, id string) (uint32, meta, bool) {
	for slot, m := range metas {
		if m.ID == id {
			return slot, m, true
		}
	}
	return 0, meta{}, false
}

// Start arms the process pid, a container's init that has not installed its filter yet: recording of container id
// begins by itself, as docs/explanation/architecture.md says. To start the same container again is no error.
func Start(id string, pid int, o Options) error {
	if id == "" || pid <= 0 {
		return fmt.Errorf("container %q with pid %d: an id and a pid are needed", id, pid)
	}
	mnt, err := mountNS(pid)
	if err != nil {
		return err
	}
	if err := requireShared(); err != nil {
		return fmt.Errorf("container %q: %w", id, err)
	}
	if own, err := mountNS(os.Getpid()); err == nil && own == mnt {
		mnt = 0 // whoever joins this one cannot be told from the host
	}
	return enter(true, func(s *set, metas map[uint32]meta) error {
		if _, m, ok := find(metas, id); ok {
			if m.Pid == pid {
				return nil
			}
			return fmt.Errorf("container %q (pid %d): %w", id, m.Pid, ErrExists)
		}
		slot, err := free(metas)
		if err != nil {
			return err
		}
		var old recorderSlot
		if err := s.Slots.Lookup(slot, &old); err != nil {
			return fmt.Errorf("read slot %d: %w", slot, err)
		}
		m := meta{ID: id, Pid: pid, Gen: max(old.Gen+1, 1), Mount: mnt, Armed: time.Now().Unix(), Options: o}
		if err := s.start(slot, m); err != nil {
			return errors.Join(err, s.release(slot, m, metas))
		}
		metas[slot] = m
		return nil
	})
}

func free(metas map[uint32]meta) (uint32, error) {
	for slot := range uint32(recorderLimitsMAX_SLOTS) {
		if _, used := metas[slot]; !used {
			return slot, nil
		}
	}
	return 0, fmt.Errorf("%d recordings are under way: %w", len(metas), ErrFull)
}

func (s *set) start(slot uint32, m meta) error {
	if m.Options.Denials {
		if err := s.watchExits(); err != nil {
			return err
		}
	}
	if err := s.keep(slot, m); err != nil {
		return err
	}
	var flags uint32
	if m.Options.Filter {
		flags |= uint32(recorderSlotFlagSLOT_FILTER)
	}
	if m.Options.Init {
		flags |= uint32(recorderSlotFlagSLOT_INIT)
	}
	if m.Options.Denials {
		flags |= uint32(recorderSlotFlagSLOT_DENIALS)
	}
	if err := s.Slots.Put(slot, &recorderSlot{Gen: m.Gen, Flags: flags, Id: slotID(m.ID)}); err != nil {
		return fmt.Errorf("open slot %d: %w", slot, err)
	}
	if m.Mount != 0 {
		j := recorderJoin{Slot: slot, Gen: m.Gen}
		var other recorderJoin
		err := s.Joins.Lookup(m.Mount, &other)
		if err == nil && !s.ended(other) {
			j = other
			j.Shared = 1
		}
		if err == nil || errors.Is(err, ebpf.ErrKeyNotExist) {
			err = s.Joins.Put(m.Mount, &j)
		}
		if err != nil {
			return fmt.Errorf("await processes that join container %q: %w", m.ID, err)
		}
	}
	// The count first: whoever dies in between leaves it too high, which costs time and no evidence.
	if err := s.addArmed(1); err != nil {
		return err
	}
	if err := s.Arms.Put(uint32(m.Pid), &recorderArm{Slot: slot, Gen: m.Gen}); err != nil {
		return errors.Join(fmt.Errorf("arm process %d: %w", m.Pid, err), s.addArmed(math.MaxUint64))
	}
	if mnt, err := mountNS(m.Pid); err != nil || mnt != m.Mount && m.Mount != 0 {
		return fmt.Errorf("process %d of container %q ended while it was armed: %w", m.Pid, m.ID, errors.Join(err, unix.ESRCH))
	}
	// Last of all, since the container waits for us and none of the above can have cost it anything. Nor can keeping it, which
	// may cost others' programs a run: it is read again.
	for range 10 {
		now, err := misses()
		if err != nil || maps.Equal(now, m.Misses) {
			return err
		}
		m.Misses = now
		if err := s.keep(slot, m); err != nil {
			return err
		}
	}
	return nil
}

// keep writes what user space keeps of a slot.
func (s *set) keep(slot uint32, m meta) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode what slot %d keeps: %w", slot, err)
	}
	var raw recorderMeta
	if len(text) >= len(raw.Json) {
		return fmt.Errorf("container %q: what the recording says of itself takes %d bytes, %d are possible", m.ID, len(text), len(raw.Json)-1)
	}
	copy(raw.Json[:], text)
	if err := s.Metas.Put(slot, &raw); err != nil {
		return fmt.Errorf("keep slot %d: %w", slot, err)
	}
	return nil
}

// ended reports that a mount namespace's container has gone, so that its number may be another's by now. recorder.bpf.c's
// joined says the same.
func (s *set) ended(j recorderJoin) bool {
	var state recorderSlot
	err := s.Slots.Lookup(j.Slot, &state)
	return err == nil && (state.Gen != j.Gen || state.Boundary != 0 && state.Alive == 0) && j.Shared == 0
}

// addArmed tells the programs that an init was put into arms, or that user space took one out again.
func (s *set) addArmed(n uint64) error {
	var armed uint64
	if err := s.Armed.Lookup(uint32(0), &armed); err != nil {
		return fmt.Errorf("read armed: %w", err)
	}
	if err := s.Armed.Put(uint32(0), armed+n); err != nil {
		return fmt.Errorf("write armed: %w", err)
	}
	return nil
}

// stop ends the recording of a slot: from here on the kernel side ignores its members.
func (s *set) stop(slot uint32, m meta) (recorderSlot, error) {
	var arm recorderArm
	if s.Arms.Lookup(uint32(m.Pid), &arm) == nil && arm.Slot == slot && arm.Gen == m.Gen && s.Arms.Delete(uint32(m.Pid)) == nil {
		if err := s.addArmed(math.MaxUint64); err != nil {
			return recorderSlot{}, err
		}
	}
	var state recorderSlot
	if err := s.Slots.Lookup(slot, &state); err != nil {
		return state, fmt.Errorf("read slot %d: %w", slot, err)
	}
	return state, nil
}

// release gives a slot back, and leaves the others to others. What is left of it in the maps carries its generation
// and is never read again.
func (s *set) release(slot uint32, m meta, others map[uint32]meta) error {
	if _, err := s.stop(slot, m); err != nil {
		return err
	}
	// Keeps the generation counting, and turns away members that still live.
	if err := s.Slots.Put(slot, &recorderSlot{Gen: m.Gen + 1}); err != nil {
		return fmt.Errorf("close slot %d: %w", slot, err)
	}
	// A shared mount namespace stays marked until the last of its containers goes.
	shared := false
	for _, o := range others {
		shared = shared || o.Mount == m.Mount
	}
	if m.Mount != 0 && !shared {
		if err := s.Joins.Delete(m.Mount); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget the mount namespace of container %q: %w", m.ID, err)
		}
	}
	of := m.owns(slot)
	err := errors.Join(
		forget[recorderFirst](s.Firsts, of), forget[uint64](s.Unknown, of), forget[recorderDenial](s.Denials, of),
		forget[uint8](s.Tuples, func(key recorderTuple) bool { return of(key.Call) }),
		forget[recorderExecutable](s.Execs, m.executed(slot)))
	if err := s.Metas.Delete(slot); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget slot %d: %w", slot, err)
	}
	return err
}

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

// Watch returns a function that counts the calls of a container that look denied so far, but for clone3 with ENOSYS, after which
// its callers go on; none while it is not recorded. To
// ask it costs nothing: bpf(2) would keep programs of perf events from running where its caller is preempted.
func Watch(id string) (denied func() uint64, err error) {
	slots, err := ebpf.LoadPinnedMap(filepath.Join(pinDir, "slots"), nil)
	if err != nil {
		return nil, fmt.Errorf("open the slots: %w", err)
	}
	defer slots.Close()
	memory, err := slots.Memory()
	if err != nil {
		return nil, fmt.Errorf("map the slots: %w", err)
	}
	want := slotID(id)
	return func() uint64 {
		var state recorderSlot
		size := int64(unsafe.Sizeof(state))
		for slot := range int64(recorderLimitsMAX_SLOTS) {
			word := func(offset uintptr) uint64 {
				var b [8]byte
				if _, err := memory.ReadAt(b[:], slot*size+int64(offset)); err != nil {
					return 0
				}
				return binary.NativeEndian.Uint64(b[:])
			}
			if word(unsafe.Offsetof(state.Id)) == want {
				return word(unsafe.Offsetof(state.Denied))
			}
		}
		return 0
	}, nil
}

// slotID is what a slot has of its container's id.
func slotID(id string) uint64 {
	sum := sha256.Sum256([]byte(id))
	return binary.NativeEndian.Uint64(sum[:])
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

// Abort ends the recording of a container and throws it away.
func Abort(id string) error {
	return enter(false, func(s *set, metas map[uint32]meta) error {
		slot, m, ok := find(metas, id)
		if !ok {
			return notRecording(id)
		}
		delete(metas, slot)
		return s.release(slot, m, metas)
	})
}

// Others returns the layouts of other builds of ours whose recorders are loaded: their recordings are not listed here.
func Others() (layouts []string, err error) {
	l, err := lock()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock(l)) }()
	sets, err := os.ReadDir(pinRoot)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the pins: %w", err)
	}
	for _, set := range sets {
		if set.Name() != layout() {
			layouts = append(layouts, set.Name())
		}
	}
	return layouts, nil
}

// AbortAll ends all recordings of this host, those of other builds of ours too, and takes everything away.
func AbortAll() (err error) {
	l, err := lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock(l)) }()
	sets, err := os.ReadDir(pinRoot)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the pins: %w", err)
	}
	for _, set := range sets {
		if err := removePins(filepath.Join(pinRoot, strings.TrimSuffix(set.Name(), halfMade))); err != nil {
			return err
		}
	}
	return tidy(nil)
}

// Try reports why the kernel refuses the recorder's programs, if it does. The hook has met that error where nobody sees all of
// it.
func Try() error {
	return enter(true, func(*set, map[uint32]meta) error { return nil })
}

// Hold mounts bpffs, if nobody has, and keeps it mounted until the file is closed. Whoever runs containers in mount
// namespaces of their own calls it first, so that all of them see the same one.
func Hold() (io.Closer, error) {
	f, err := hold()
	if err != nil {
		return nil, err
	}
	return closer(func() error { return letGo(f) }), nil
}

type closer func() error

func (c closer) Close() error { return c() }

// List returns the recordings under way, by id.
func List() ([]Status, error) {
	var all []Status
	err := enter(false, func(s *set, metas map[uint32]meta) error {
		for slot, m := range metas {
			var state recorderSlot
			if err := s.Slots.Lookup(slot, &state); err != nil {
				return fmt.Errorf("read slot %d: %w", slot, err)
			}
			denials, err := entries[recorderDenial](s.Denials, m.owns(slot))
			if err != nil {
				return err
			}
			st := Status{
				ID: m.ID, Pid: m.Pid, Mount: m.Mount, State: Ended, Armed: time.Unix(m.Armed, 0), Started: state.Execs > 0, Boundary: boundaries[state.Boundary],
				Alive: state.Alive, Denied: len(denials), Options: m.Options,
			}
			var arm recorderArm
			if state.Alive > 0 {
				st.State = Recording
			} else if s.Arms.Lookup(uint32(m.Pid), &arm) == nil && arm.Slot == slot && arm.Gen == m.Gen {
				st.State = Armed
			}
			for _, word := range state.Seen {
				st.Calls += bits.OnesCount64(word)
			}
			all = append(all, st)
		}
		return nil
	})
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.ID, b.ID) })
	return all, err
}

var (
	boundaries = [...]profile.Boundary{profile.BoundaryNone, profile.BoundaryFilter, profile.BoundaryExecve}
	phases     = [recorderPhasePHASES]profile.Phase{profile.PhaseRuntime, profile.PhaseWorkload, profile.PhaseExec}
	outcomes   = [...]profile.Outcome{profile.OutcomeErrno, profile.OutcomeTrap, profile.OutcomeKill}
	drops      = [recorderDropDROPS]string{
		profile.DropFork, profile.DropAdopt, profile.DropCaller, profile.DropUnknown, profile.DropDenial, profile.DropUnfiltered,
	}
)

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

func caller(f recorderFirst) profile.Caller {
	return profile.Caller{Comm: text(f.Comm[:]), Exe: text(f.Exe[:]), PCs: slices.Clone(f.Stack[:min(int(f.Frames), len(f.Stack))])}
}

func text(raw []uint8) string {
	name, _, _ := bytes.Cut(raw, []byte{0})
	return string(bytes.ToValidUTF8(name, []byte("?")))
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

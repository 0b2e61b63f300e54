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

// Watch returns a function that counts the calls of a container that look denied so far, but for clone3 with ENOSYS, after which
// its callers go on; none while it is not recorded. To
// ask it costs nothing: bpf(2) would keep programs of perf events from running where its caller is preempted.
func Watch(id string) (denied func() uint64, err error) {
	slots, err := ebpf.LoadPinnedMap(filepath.Join(pinDir(), "slots"), nil)
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

//go:build amd64 || arm64

package tracer

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

// layout names the pins of this build's object, so that two versions can record side by side.
func layout() string {
	sum := sha256.Sum256(_RecorderBytes)
	return hex.EncodeToString(sum[:6])
}

// set is the shared recorder: the maps that user space touches, opened from their pins.
type set struct {
	Slots   *ebpf.Map `ebpf:"slots"`
	Metas   *ebpf.Map `ebpf:"metas"`
	Arms    *ebpf.Map `ebpf:"arms"`
	Joins   *ebpf.Map `ebpf:"joins"`
	Firsts  *ebpf.Map `ebpf:"firsts"`
	Unknown *ebpf.Map `ebpf:"unknown"`
	Denials *ebpf.Map `ebpf:"denials"`
	Tuples  *ebpf.Map `ebpf:"tuples"`
	Execs   *ebpf.Map `ebpf:"executables"`
	Armed   *ebpf.Map `ebpf:".data.user"`

	misses map[string]uint64 // when the set was opened
}

func (s *set) maps() map[string]**ebpf.Map {
	return map[string]**ebpf.Map{
		"slots": &s.Slots, "metas": &s.Metas, "arms": &s.Arms, "joins": &s.Joins,
		"firsts": &s.Firsts, "unknown": &s.Unknown, "denials": &s.Denials, "tuples": &s.Tuples, "executables": &s.Execs, "armed": &s.Armed,
	}
}

func (s *set) Close() {
	for _, m := range s.maps() {
		(*m).Close()
	}
}

// halfMade ends the name of a set that is being made or removed.
const halfMade = "_new"

// hook is where a program is attached. Its pins are called after the tracepoint.
type hook struct {
	program string // in the object
	event   string // the tracepoint
	group   string // that its perf event belongs to; "" for a raw tracepoint
}

func (h hook) pin(dir, kind string) string { return filepath.Join(dir, kind+"_"+h.event) }

// sysExit is the event that is attached only where denials are wanted.
const sysExit = "sys_exit"

// hooks returns what a set consists of, in the order in which it is attached: a child must be a member before its first
// call, so forks come before entries.
func hooks(byPerf bool) []hook {
	if byPerf {
		return []hook{
			{"sched_process_fork", "sched_process_fork", ""},
			{"task_newtask", "task_newtask", ""},
			{"perf_sched_process_exec", "sched_process_exec", "sched"},
			{"perf_sched_process_exit", "sched_process_exit", "sched"},
			{"perf_sys_exit", sysExit, "raw_syscalls"},
			{"perf_sys_enter", "sys_enter", "raw_syscalls"},
		}
	}
	return []hook{
		{"sched_process_fork", "sched_process_fork", ""},
		{"sched_process_exec", "sched_process_exec", ""},
		{"sched_process_exit", "sched_process_exit", ""},
		{"sys_exit", sysExit, ""},
		{"sys_enter", "sys_enter", ""},
	}
}

// attach attaches a program and pins the link.
func (h hook) attach(p *ebpf.Program, dir string) error {
	var l link.Link
	var err error
	switch {
	case h.group != "":
		l, err = attachPerf(h.group, h.event, p)
	case p.Type() == ebpf.RawTracepoint:
		l, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: h.event, Program: p})
	default:
		l, err = link.AttachTracing(link.TracingOptions{Program: p, AttachType: ebpf.AttachTraceRawTp})
	}
	if err != nil {
		return fmt.Errorf("attach %s: %w", h.program, err)
	}
	defer l.Close()
	if err := l.Pin(h.pin(dir, "link")); err != nil {
		return fmt.Errorf("pin the link of %s: %w", h.program, err)
	}
	return nil
}

// open returns the set that is pinned, or fs.ErrNotExist.
func open() (*set, error) {
	s := new(set)
	for name, m := range s.maps() {
		var err error
		if *m, err = ebpf.LoadPinnedMap(filepath.Join(pinDir(), name), nil); err != nil {
			s.Close()
			return nil, fmt.Errorf("open pinned map %s: %w", name, err)
		}
	}
	return s, nil
}

// load puts a new set into the kernel, attaches it and pins it: all of it, or nothing. The caller holds the lock.
func load() (*set, error) {
	if err := requireHost(); err != nil {
		return nil, err
	}
	spec, err := loadRecorder()
	if err != nil {
		return nil, fmt.Errorf("read the BPF object: %w", err)
	}
	if err := spec.Variables[recorderVarNamed].Set(named()); err != nil {
		return nil, fmt.Errorf("set the named numbers: %w", err)
	}
	ruleOf, rules := argumentRules()
	if err := errors.Join(spec.Variables[recorderVarRuleOf].Set(ruleOf), spec.Variables[recorderVarRules].Set(rules)); err != nil {
		return nil, fmt.Errorf("set the rules for arguments: %w", err)
	}
	if err := spec.Variables[recorderVarByPerf].Set(preemptible()); err != nil {
		return nil, fmt.Errorf("set how programs are called: %w", err)
	}
	all := hooks(preemptible())
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool {
		return !slices.ContainsFunc(all, func(h hook) bool { return h.program == name })
	})
	objects, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, unsupported(err)
	}
	defer objects.Close()
	s := new(set)
	if err := objects.Assign(s); err != nil {
		return nil, fmt.Errorf("find the recorder's maps: %w", err)
	}
	// Remove what a killed process left half-made. A complete set would have been opened above.
	if err := removePins(pinDir()); err != nil {
		return nil, err
	}
	tmp := pinDir() + halfMade
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return nil, fmt.Errorf("make the pin directory: %w", err)
	}
	for name, m := range s.maps() {
		if err := (*m).Pin(filepath.Join(tmp, name)); err != nil {
			return nil, fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	for _, h := range all {
		p := objects.Programs[h.program]
		if err := p.Pin(h.pin(tmp, "prog")); err != nil {
			return nil, fmt.Errorf("pin program %s: %w", h.program, err)
		}
		if h.event == sysExit {
			continue
		}
		if err := h.attach(p, tmp); err != nil {
			return nil, err
		}
	}
	if err := os.Rename(tmp, pinDir()); err != nil {
		return nil, fmt.Errorf("name the pin directory: %w", err)
	}
	return s, nil
}

// watchExits attaches sys_exit, once for all recordings that want denials. It stays until the set goes: a link goes
// some time after its last holder has let go of it, and of two sys_exit programs at one exit the second would see an exit
// without an entry.
func (s *set) watchExits() error {
	for _, h := range hooks(preemptible()) {
		if h.event != sysExit {
			continue
		}
		if _, err := os.Stat(h.pin(pinDir(), "link")); err == nil {
			return nil
		}
		p, err := ebpf.LoadPinnedProgram(h.pin(pinDir(), "prog"), nil)
		if err != nil {
			return fmt.Errorf("open pinned program %s: %w", h.program, err)
		}
		defer p.Close()
		return h.attach(p, pinDir())
	}
	return nil
}

// misses returns how often the kernel skipped each program so far, by event: it does not run a program for a task while
// another task on that CPU has been preempted inside it.
func misses() (map[string]uint64, error) {
	all := map[string]uint64{} // without those that were never skipped
	for _, h := range hooks(preemptible()) {
		p, err := ebpf.LoadPinnedProgram(h.pin(pinDir(), "prog"), nil)
		if err != nil {
			return nil, fmt.Errorf("open pinned program %s: %w", h.program, err)
		}
		stats, err := p.Stats()
		p.Close()
		if err != nil {
			return nil, fmt.Errorf("read the statistics of program %s: %w", h.program, err)
		}
		if stats.RecursionMisses > 0 {
			all[h.event] = stats.RecursionMisses
		}
	}
	return all, nil
}

// lost returns how many events of a recording the recorder may not have seen, of the misses since it began.
func lost(before, now map[string]uint64, byPerf, denials bool) (n uint64) {
	grown := map[string]uint64{}
	for event := range now {
		grown[event] = now[event] - before[event]
	}
	if byPerf { // where two programs see each fork, which is lost only if both were skipped
		grown["sched_process_fork"] = min(grown["sched_process_fork"], grown["task_newtask"])
		delete(grown, "task_newtask")
	}
	if !denials { // and then an exit says nothing
		delete(grown, sysExit)
	}
	for _, missed := range grown {
		n += missed
	}
	return n
}

// tidy takes the set away when no recording needs it any more. The caller holds the lock.
func tidy(metas map[uint32]meta) error {
	if len(metas) > 0 {
		return nil
	}
	if err := removePins(pinDir()); err != nil {
		return err
	}
	if err := os.Remove(pinRoot); err != nil && !errors.Is(err, fs.ErrNotExist) {
		if errors.Is(err, unix.ENOTEMPTY) {
			return nil // another build records
		}
		return fmt.Errorf("remove the pin directory: %w", err)
	}
	return nil
}

// removePins takes a set away, whole or half made. Its directory loses its name first: if we die in between, nobody
// takes the rest for a set.
func removePins(dir string) error {
	tmp := dir + halfMade
	err := os.RemoveAll(tmp)
	if err == nil {
		err = os.Rename(dir, tmp)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = os.RemoveAll(tmp)
	}
	if err != nil {
		return fmt.Errorf("remove the pins: %w", err)
	}
	return nil
}

// named returns the bits of the numbers that have a name.
func named() []uint64 {
	words := make([]uint64, recorderAbiABIS*recorderAbi(recorderLimitsNR_WORDS))
	for i, abi := range abis {
		for nr := range uint32(recorderLimitsNR_LIMIT) {
			if abi != "" && profile.Name(abi, nr) != "" {
				words[uint32(i)*uint32(recorderLimitsNR_WORDS)+nr/64] |= 1 << (nr % 64)
			}
		}
	}
	return words
}

// argumentRules returns the calls whose arguments are kept, and which bits of them. Rule 0 keeps none.
func argumentRules() (of []uint8, rules []recorderRule) {
	of = make([]uint8, recorderAbiABIS*recorderAbi(recorderLimitsNR_LIMIT))
	rules = make([]recorderRule, 1, recorderLimitsRULES)
	for i, abi := range abis {
		for nr := range uint32(recorderLimitsNR_LIMIT) {
			masks := profile.ArgumentMasks(abi, nr)
			if masks == nil {
				continue
			}
			var rule recorderRule
			copy(rule.Masks[:], masks)
			at := slices.Index(rules, rule)
			if at < 0 {
				at = len(rules)
				rules = append(rules, rule)
			}
			of[uint32(i)*uint32(recorderLimitsNR_LIMIT)+nr] = uint8(at)
		}
	}
	return of, rules[:recorderLimitsRULES]
}

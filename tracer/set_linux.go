//go:build amd64 || arm64

package tracer

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

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
	Armed   *ebpf.Map `ebpf:".data.user"`
}

func (s *set) maps() map[string]**ebpf.Map {
	return map[string]**ebpf.Map{
		"slots": &s.Slots, "metas": &s.Metas, "arms": &s.Arms, "joins": &s.Joins,
		"firsts": &s.Firsts, "unknown": &s.Unknown, "denials": &s.Denials, "tuples": &s.Tuples, "armed": &s.Armed,
	}
}

func (s *set) Close() {
	for _, m := range s.maps() {
		(*m).Close()
	}
}

// The pins beside the maps'.
const (
	halfMade       = "_new" // ends the name of a set that is being made or taken away
	pinSysExit     = "prog_sys_exit"
	pinSysExitLink = "link_sys_exit"
)

// open returns the set that is pinned, or fs.ErrNotExist.
func open() (*set, error) {
	s := new(set)
	for name, m := range s.maps() {
		var err error
		if *m, err = ebpf.LoadPinnedMap(filepath.Join(pinDir, name), nil); err != nil {
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
	objects := struct {
		set
		Fork  *ebpf.Program `ebpf:"sched_process_fork"`
		Exec  *ebpf.Program `ebpf:"sched_process_exec"`
		Exit  *ebpf.Program `ebpf:"sched_process_exit"`
		Enter *ebpf.Program `ebpf:"sys_enter"`
		Leave *ebpf.Program `ebpf:"sys_exit"`
	}{}
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		return nil, fmt.Errorf("%w: load the BPF programs: %w", ErrUnsupported, err)
	}
	// Whatever a killed process left half made goes; a whole set would have been opened.
	if err := removePins(pinDir); err != nil {
		return nil, err
	}
	tmp := pinDir + halfMade
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return nil, fmt.Errorf("make the pin directory: %w", err)
	}
	for name, m := range objects.maps() {
		if err := (*m).Pin(filepath.Join(tmp, name)); err != nil {
			return nil, fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	if err := objects.Leave.Pin(filepath.Join(tmp, pinSysExit)); err != nil {
		return nil, fmt.Errorf("pin program sys_exit: %w", err)
	}
	objects.Leave.Close()
	// Forks before entries: a child must be a member before its first call.
	for i, p := range []*ebpf.Program{objects.Fork, objects.Exec, objects.Exit} {
		l, err := link.AttachTracing(link.TracingOptions{Program: p, AttachType: ebpf.AttachTraceRawTp})
		if err := keep(l, err, filepath.Join(tmp, "link_"+strconv.Itoa(i))); err != nil {
			return nil, err
		}
		p.Close()
	}
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: objects.Enter})
	if err := keep(l, err, filepath.Join(tmp, "link_sys_enter")); err != nil {
		return nil, err
	}
	objects.Enter.Close()
	if err := os.Rename(tmp, pinDir); err != nil {
		return nil, fmt.Errorf("name the pin directory: %w", err)
	}
	return &objects.set, nil
}

// keep pins the link of a program that was attached.
func keep(l link.Link, err error, pin string) error {
	if err != nil {
		return fmt.Errorf("attach %s: %w", filepath.Base(pin), err)
	}
	defer l.Close()
	if err := l.Pin(pin); err != nil {
		return fmt.Errorf("pin %s: %w", filepath.Base(pin), err)
	}
	return nil
}

// watchExits attaches sys_exit, once for all recordings that want denials. It stays until the set goes: a link goes
// some time after its last holder has let go of it, and of two sys_exit programs at one exit the second would see an exit
// without an entry.
func (s *set) watchExits() error {
	pin := filepath.Join(pinDir, pinSysExitLink)
	if _, err := os.Stat(pin); err == nil {
		return nil
	}
	p, err := ebpf.LoadPinnedProgram(filepath.Join(pinDir, pinSysExit), nil)
	if err != nil {
		return fmt.Errorf("open pinned program sys_exit: %w", err)
	}
	defer p.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_exit", Program: p})
	return keep(l, err, pin)
}

// tidy takes the set away when no recording needs it any more. The caller holds the lock.
func tidy(metas map[uint32]meta) error {
	if len(metas) > 0 {
		return nil
	}
	if err := removePins(pinDir); err != nil {
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

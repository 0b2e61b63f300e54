package profile

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// WhyVersion is the version of why.json that this package writes. It reads version 1 too.
const WhyVersion = 2

// ErrOtherProfile says that a why.json explains other bytes than those of the profile at hand.
var ErrOtherProfile = errors.New("why.json explains another profile")

// Why explains a profile: every entry of it has at least one reason.
type Why struct {
	Version  int        `json:"version"`
	Profile  string     `json:"profile"` // SHA-256 of profile.json
	Entries  []Entry    `json:"entries"`
	Untested []Untested `json:"untested"`
	Unknown  []Unknown  `json:"unknown,omitempty"` // seen, and impossible to list
}

// Entry is one call of one ABI in the profile.
type Entry struct {
	ABI     specs.Arch               `json:"abi"`
	Name    string                   `json:"name"`
	Action  specs.LinuxSeccompAction `json:"action"`
	Errno   *uint                    `json:"errno,omitempty"`
	Args    []specs.LinuxSeccompArg  `json:"args,omitempty"`
	Reasons []Reason                 `json:"reasons"`
}

// Kind is what a reason is of.
type Kind string

// The kinds of reasons.
const (
	KindObserved    Kind = "observed"    // the workload, or a process that joined it, was seen to make the call
	KindOCIRuntime  Kind = "oci-runtime" // the OCI runtime makes it under the filter, before the workload: seen or measured
	KindGoRuntime   Kind = "go-runtime"  // the Go runtime makes it without the program asking, at a moment that a run may not show
	KindImplicit    Kind = "implicit"    // the same of the kernel, every program's end, and the threads of C
	KindErrno       Kind = "errno"       // the answer makes callers fall back on another call
	KindArgument    Kind = "argument"    // for some arguments only, or why for all
	KindPortability Kind = "portability" // made instead on other kernels or ABIs
	KindRepair      Kind = "repair"      // verify --repair added it
	KindDangerous   Kind = "dangerous"   // nobody should allow it without having decided to
	KindWider       Kind = "wider"       // wider than a profile that it is compared with
	KindNames       Kind = "names"       // allowed on this ABI since rules are by name
	KindReachable   Kind = "reachable"   // the machine code of a program that will run can make it
	KindGiven       Kind = "given"       // in the profile that was repaired, whose reasons are not known
)

// Reason is one reason for an entry.
type Reason struct {
	Kind   Kind   `json:"kind"`
	Text   string `json:"text"`
	Caller string `json:"caller,omitempty"`

	args argumentsOf
}

// argumentsOf says whose arguments a call of a reason has, while a profile is built.
type argumentsOf int

const (
	nobodys     argumentsOf = iota // those of a call that was not recorded, and are not known
	recorded                       // the recorded ones
	goRuntimes                     // the Go runtime's own
	sameCalls                      // those of the same call on another ABI, which was recorded
	cloneThread                    // those of threads and processes, without namespaces
)

// Untested is a call that the program can make, was not seen to make, and is not allowed.
type Untested struct {
	ABI       specs.Arch `json:"abi"`
	Name      string     `json:"name"`
	Functions []string   `json:"functions"`
	Programs  []string   `json:"programs,omitempty"`  // whose functions they are
	Dangerous string     `json:"dangerous,omitempty"` // why nobody should allow it without having decided to
}

func (w *Why) add(targets map[target][]Reason, action specs.LinuxSeccompAction, errno *uint, args map[string]*condition, abis []specs.Arch) {
	for t, reasons := range targets {
		for _, rule := range args[t.name].rules() {
			e := Entry{ABI: t.abi, Name: t.name, Action: action, Errno: errno, Args: rule, Reasons: reasons}
			if c := args[t.name]; c != nil {
				e.Reasons = append(slices.Clone(reasons), c.reason(t.name, rule))
				if slices.Contains(abis, specs.ArchX86) && slices.ContainsFunc(rule, func(a specs.LinuxSeccompArg) bool { return hides(specs.ArchX86, t.name, a.Index) }) {
					e.Reasons = append(e.Reasons, Reason{Kind: KindArgument, Text: fmt.Sprintf("the condition is void on %s, which passes the arguments of %s in memory and has it by the name", specs.ArchX86, t.name)})
				}
			}
			w.Entries = append(w.Entries, e)
		}
	}
	slices.SortFunc(w.Entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(abiOrder(a.ABI), abiOrder(b.ABI)), cmp.Compare(a.Action, b.Action), cmp.Compare(a.Name, b.Name), compareConditions(a.Args, b.Args))
	})
}

// Write encodes the explanation as why.json.
func (w *Why) Write(to io.Writer) error { return WriteJSON(to, w) }

// ReadWhy decodes why.json.
func ReadWhy(from io.Reader) (*Why, error) {
	data, err := io.ReadAll(from)
	if err != nil {
		return nil, fmt.Errorf("read why.json: %w", err)
	}
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, fmt.Errorf("why.json is not whole JSON: %w", err)
	}
	if v.Version < 1 || v.Version > WhyVersion {
		return nil, fmt.Errorf("why.json has version %d, this seccompgen reads versions 1 to %d", v.Version, WhyVersion)
	}
	var w Why
	if err := strictJSON(data, &w); err != nil {
		return nil, fmt.Errorf("decode why.json: %w", err)
	}
	if w.Version == 1 {
		w.upgrade()
	}
	return &w, nil
}

// upgrade gives the kinds of version 1 their names of today.
func (w *Why) upgrade() {
	w.Version = WhyVersion
	for _, e := range w.Entries {
		for i, r := range e.Reasons {
			switch {
			case r.Kind == "runtime":
				e.Reasons[i].Kind = KindOCIRuntime
			case r.Kind == "closure" && r.Caller == "": // it named the programs of all others
				e.Reasons[i].Kind = KindImplicit
			case r.Kind == "closure":
				e.Reasons[i].Kind = KindGoRuntime
			}
		}
	}
}

// Explains returns nil if the why.json was written with a profile of these bytes.
func (w *Why) Explains(data []byte) error {
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != w.Profile {
		return fmt.Errorf("%w: it is for the SHA-256 %.12s, the profile has %x: build both in one go, with --why", ErrOtherProfile, w.Profile, sum[:6])
	}
	return nil
}

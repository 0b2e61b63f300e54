// Package report writes the outcome of a verification for people and for machines: one HTML file that needs nothing
// else, JSON, JUnit's XML, and Markdown for a pull request. The same inputs give the same bytes: neither a clock nor a host name
// is in them. All that a test or a program can choose, such as its name, is escaped.
package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/verify"
	"github.com/seccompgen/seccompgen/profile"
)

// Input is what a report is made of. Only Report and Profile must be there; what a section lacks it says.
type Input struct {
	Report    *verify.Report
	Profile   *specs.LinuxSeccomp
	SHA256    string               // of the profile's file
	Docker    *specs.LinuxSeccomp  // Docker's default profile, for the container's capabilities
	Recording *profile.Recording   // of which the profile was built
	Why       *profile.Why         // the profile's reasons
	Coverage  map[string]Statement // of the functions of a Go cover profile
}

// Statement is how many statements a function has, and how many of them tests covered.
type Statement struct {
	Covered int `json:"covered"`
	All     int `json:"all"`
}

// Document is the report as JSON: that of verify, and more keys. docs/reference/report.md describes it.
type Document struct {
	*verify.Report
	ProfileSHA256 string              `json:"profileSHA256,omitempty"`
	Docker        *profile.Comparison `json:"docker,omitempty"`
	Recording     *Recorded           `json:"recording,omitempty"`
	Saturation    *profile.Saturation `json:"saturation,omitempty"`
	Sightings     []Sighting          `json:"sightings,omitempty"`
	Entries       []profile.Entry     `json:"entries,omitempty"`
	Untested      []Untested          `json:"untested,omitempty"`

	hasWhy bool
}

// Recorded says which recording the report is about.
type Recorded struct {
	ID       string           `json:"id"`
	Complete bool             `json:"complete"`
	Missing  string           `json:"missing,omitempty"`
	Runs     int              `json:"runs"`
	Runtime  profile.Runtime  `json:"runtime"`
	Kernel   string           `json:"kernel"`
	Workload profile.Workload `json:"workload"`
}

// Sighting is a call that a test was the first to make, in at least one of the runs. Test is empty where no test was on
// the stack: the Go runtime, goroutines, the test binary's own start, and children.
type Sighting struct {
	Test string     `json:"test"`
	ABI  specs.Arch `json:"abi"`
	Name string     `json:"name"`
	Runs int        `json:"runs"` // that made the call at all, in whatever test
}

// Untested is a call that the program's code can make, that no run made, and that the profile refuses.
type Untested struct {
	ABI       specs.Arch `json:"abi"`
	Name      string     `json:"name"`
	Functions []Function `json:"functions"`
}

// Function makes a system call.
type Function struct {
	Name     string     `json:"name"`
	Coverage *Statement `json:"coverage,omitempty"` // nil if the cover profile does not hold it
}

// New joins the inputs.
func New(in Input) *Document {
	d := &Document{Report: in.Report, ProfileSHA256: in.SHA256}
	if in.Docker != nil {
		d.Docker = profile.Compare(in.Profile, in.Docker)
	}
	if r := in.Recording; r != nil {
		d.Recording = &Recorded{ID: r.ID, Complete: r.Complete, Runs: len(r.Runs), Runtime: r.Runtime, Kernel: r.Kernel, Workload: r.Workload}
		if err := r.Incomplete(); err != nil {
			d.Recording.Missing = err.Error()
		}
		d.Saturation = profile.Saturate(r)
		d.Sightings = sightings(r, d.Saturation)
	}
	if in.Why != nil {
		d.hasWhy = true
		d.Entries = in.Why.Entries
		for _, u := range in.Why.Untested {
			t := Untested{ABI: u.ABI, Name: u.Name, Functions: []Function{}}
			for _, name := range u.Functions {
				f := Function{Name: name}
				if s, ok := in.Coverage[plain(name)]; ok {
					f.Coverage = &s
				}
				t.Functions = append(t.Functions, f)
			}
			d.Untested = append(d.Untested, t)
		}
	}
	return d
}

// sightings lists the workload's calls by the tests that were the first to make them.
func sightings(r *profile.Recording, s *profile.Saturation) []Sighting {
	runs := map[Sighting]int{}
	for _, f := range s.Calls {
		runs[Sighting{ABI: f.ABI, Name: f.Name}] = f.Runs
	}
	var all []Sighting
	for _, c := range r.Syscalls {
		if c.Denied != nil || c.Phase == profile.PhaseRuntime {
			continue
		}
		call := Sighting{ABI: c.ABI, Name: profile.Name(c.ABI, c.Nr)}
		n := runs[call]
		for _, who := range c.Callers {
			test := who.Test
			if test != "" {
				test = profile.TestIn(who.Package, test)
			}
			all = append(all, Sighting{Test: test, ABI: call.ABI, Name: call.Name, Runs: n})
		}
	}
	slices.SortFunc(all, func(a, b Sighting) int {
		return cmp.Or(cmp.Compare(a.Test, b.Test), cmp.Compare(a.ABI, b.ABI), cmp.Compare(a.Name, b.Name))
	})
	return slices.Compact(all)
}

var writers = map[string]func(*Document, io.Writer) error{
	".html": (*Document).HTML, ".json": (*Document).JSON, ".xml": (*Document).JUnit, ".md": (*Document).Markdown,
}

// Check refuses a file whose name does not tell the format.
func Check(path string) error {
	if writers[filepath.Ext(path)] == nil {
		return fmt.Errorf("report %s: its name must end in .html, .json, .xml (JUnit) or .md", path)
	}
	return nil
}

// Write writes the format that the name of the file tells.
func (d *Document) Write(path string, to io.Writer) error {
	if err := Check(path); err != nil {
		return err
	}
	return writers[filepath.Ext(path)](d, to)
}

// JSON writes the document.
func (d *Document) JSON(to io.Writer) error {
	e := json.NewEncoder(to)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(d)
}

// title names what was verified.
func (d *Document) title() string {
	if d.Recording == nil {
		return ""
	}
	w := d.Recording.Workload
	return cmp.Or(w.Name(), strings.Join(w.Args, " "))
}

func abi(a specs.Arch) string { return strings.TrimPrefix(string(a), "SCMP_ARCH_") }

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// callName is the name of a denied call, or its number.

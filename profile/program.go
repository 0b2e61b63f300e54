package profile

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Program is an executable that ran in the container. It was read, and then has a hash; or Unread says why it was not.
type Program struct {
	Path    string  `json:"path"` // in the container
	SHA256  string  `json:"sha256,omitempty"`
	Size    int64   `json:"size,omitempty"`
	BuildID string  `json:"buildID,omitempty"` // Go's, or else the linker's
	Go      string  `json:"go,omitempty"`      // the version of Go that it was built with
	Unread  string  `json:"unread,omitempty"`  // why it was not read; of one that was, why its machine code was not analyzed
	File    *File   `json:"file,omitempty"`    // of a program that nobody has looked for
	Static  *Static `json:"static,omitempty"`
}

// File says which file a program is, on the host that recorded it.
type File struct {
	Device uint64 `json:"device"` // as stat(2) has it
	Inode  uint64 `json:"inode"`
	Began  int64  `json:"began"` // Unix time in nanoseconds at which it was executed first
}

// maxUnread bounds the programs that a recording of many runs lists without knowing anything of them. Two say no more than one.
const maxUnread = 256

// isGo reports whether a program is known to be one of Go's.
func (p Program) isGo() bool { return p.Go != "" || p.Static != nil }

// unanalyzed reports whether a program may be one of Go's whose calls nobody knows.
func (p Program) unanalyzed() bool { return p.Static == nil && (p.Go != "" || p.Unread != "") }

func (p Program) String() string {
	return cmp.Or(p.Path, "programs that are not known")
}

func (p Program) compare(q Program) int {
	file := func(p Program) string {
		if p.File == nil {
			return ""
		}
		return fmt.Sprintf("%020d %020d %020d", p.File.Device, p.File.Inode, p.File.Began)
	}
	return cmp.Or(cmp.Compare(p.Path, q.Path), cmp.Compare(p.SHA256, q.SHA256), cmp.Compare(p.Unread, q.Unread), cmp.Compare(file(p), file(q)))
}

func (p Program) check() error {
	if p.SHA256 == "" && p.Unread == "" && !p.isGo() {
		return fmt.Errorf("program %q was neither read nor does it say why not", p.Path)
	}
	if p.SHA256 != "" && (len(p.SHA256) != 64 || strings.Trim(p.SHA256, "0123456789abcdef") != "") {
		return fmt.Errorf("program %q has the sha256 %.70q, which is not one", p.Path, p.SHA256)
	}
	if p.Static == nil {
		return nil
	}
	return p.Static.Check()
}

// Check refuses an analysis that no profile can be built from.
func (s *Static) Check() error {
	for _, c := range s.GoRuntime {
		if Name(c.ABI, c.Nr) == "" || c.Text == "" {
			return fmt.Errorf("call %d of %q of the Go runtime has no name here, or no reason", c.Nr, c.ABI)
		}
	}
	return nil
}

// Unanalyzed returns the programs that may be Go programs and whose calls are not known. Where calls were seen and no
// program, one without a path says so.
func (r *Recording) Unanalyzed() []Program {
	var all []Program
	for _, p := range r.Programs {
		if p.unanalyzed() {
			all = append(all, p)
		}
	}
	return append(all, r.unknownPrograms()...)
}

// unknownPrograms returns what stands for the programs of a recording that shows calls and no program.
func (r *Recording) unknownPrograms() []Program {
	if len(r.Programs) > 0 || len(r.abis(PhaseWorkload, PhaseExec)) == 0 {
		return nil
	}
	return []Program{{Unread: "the recording does not say what ran"}}
}

// abis returns the ABIs of which calls were seen in some phases.
func (r *Recording) abis(phases ...Phase) []specs.Arch {
	var all []specs.Arch
	for _, s := range r.Syscalls {
		if slices.Contains(phases, s.Phase) && !slices.Contains(all, s.ABI) {
			all = append(all, s.ABI)
		}
	}
	return all
}

// statics returns the analyses of a recording's programs.
func (r *Recording) statics() []*Static {
	var all []*Static
	for _, p := range r.Programs {
		if p.Static != nil {
			all = append(all, p.Static)
		}
	}
	return all
}

// AddAnalysis gives the program of a hash its analysis. Where the recordings have none of that hash it is one more program.
func AddAnalysis(recordings []*Recording, p Program) {
	found := false
	for _, r := range recordings {
		for i := range r.Programs {
			if r.Programs[i].SHA256 == p.SHA256 {
				r.Programs[i].Go, r.Programs[i].Unread, r.Programs[i].Static = p.Go, "", p.Static
				found = true
			}
		}
	}
	if found {
		return
	}
	for _, r := range recordings {
		r.Programs = slices.Concat(r.Programs, r.unknownPrograms(), []Program{p}) // one more says nothing of the others
	}
}

// mergePrograms unites two lists.
func mergePrograms(a, b []Program) []Program {
	all := slices.Concat(a, b)
	slices.SortFunc(all, Program.compare)
	var merged []Program
	unread := 0
	for _, p := range all {
		if n := len(merged); n > 0 && merged[n-1].compare(p) == 0 {
			merged[n-1] = merged[n-1].with(p)
			continue
		}
		if p.SHA256 == "" && !p.isGo() {
			if unread++; unread > maxUnread {
				continue
			}
		}
		merged = append(merged, p)
	}
	return merged
}

// with unites what two runs know of the same program.
func (p Program) with(q Program) Program {
	p.Size, p.BuildID, p.Go = max(p.Size, q.Size), max(p.BuildID, q.BuildID), max(p.Go, q.Go)
	if p.Static == nil || q.Static != nil && bytes.Compare(p.Static.encode(), q.Static.encode()) > 0 {
		p.Static = q.Static
	}
	return p
}

func (s *Static) encode() []byte {
	data, err := json.Marshal(s)
	if err != nil {
		panic(err) // plain strings and numbers: cannot happen
	}
	return data
}

// recordingV1 is version 1 of recording.json: it knew one program, if that was Go's.
type recordingV1 struct {
	Recording
	Static   *staticV1  `json:"static,omitempty"`
	Programs *[]Program `json:"programs,omitempty"` // a key of version 2
}

// staticV1 is Static with an older name of a key.
type staticV1 struct {
	Closure    []StaticCall `json:"closure"`
	Reachable  []StaticCall `json:"reachable"`
	Unresolved []string     `json:"unresolved"`
}

func (v *recordingV1) upgrade() (*Recording, error) {
	r := v.Recording
	if v.Programs != nil {
		return nil, errors.New(`version 1 has no key "programs"`)
	}
	if w := r.Workload; v.Static != nil || w.Go != "" {
		p := Program{SHA256: w.SHA256, Go: w.Go}
		if v.Static != nil {
			p.Static = &Static{GoRuntime: v.Static.Closure, Reachable: v.Static.Reachable, Unresolved: v.Static.Unresolved}
		}
		switch {
		case w.Package != "":
			p.Path = path.Base(w.Package) + ".test"
		case len(w.Args) > 0:
			p.Path = w.Args[0]
		}
		r.Programs = []Program{p}
	}
	for i := range r.Syscalls {
		if r.Syscalls[i].Phase == "runtime" {
			r.Syscalls[i].Phase = PhaseRuntime
		}
	}
	r.Version = RecordingVersion
	return &r, nil
}

// whoFor says for whom the policy adds what it knows of Go programs.
func whoFor(programs []Program) string {
	names := map[string]bool{}
	for _, p := range programs {
		names[p.String()] = true
	}
	sorted := slices.Sorted(maps.Keys(names))
	switch len(sorted) {
	case 0:
		return ""
	case 1:
		return sorted[0]
	}
	return fmt.Sprintf("%s and %d more", sorted[0], len(sorted)-1)
}

package hook

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seccompgen/seccompgen/internal/annotation"
	"github.com/seccompgen/seccompgen/profile"
)

func TestRecordingsInTheDirectory(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	o := &options{dir: w.dir, policy: "exact"}
	read := func(name string) *profile.Recording {
		t.Helper()
		f, err := os.Open(filepath.Join(w.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := profile.ReadRecording(f)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	finish := func(tg *target, r *profile.Recording) {
		t.Helper()
		if after, err := o.finish(tg, r); after != nil || err != nil {
			t.Fatal(after, err)
		}
	}
	web := &target{name: "web-c1"}
	finish(web, recordingOf("c1"))
	info, err := os.Stat(filepath.Join(w.dir, "web-c1.json"))
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("got %v, %v", info, err)
	}
	// Restarts are added.
	again := recordingOf("c1")
	again.Syscalls[0].Nr, again.Syscalls[0].Name = 110, "getppid"
	finish(web, again)
	finish(web, recordingOf("c1"))
	if r := read("web-c1.json"); len(r.Runs) != 3 || r.Runs[0].ID != "c1" || r.Runs[2].ID != "c1.3" || len(r.Syscalls) != 2 || !r.Complete {
		t.Errorf("after two restarts: %+v", r)
	}
	// What is incomplete, or of another workload, stands beside it.
	part := recordingOf("c1")
	part.Drop(profile.DropFork, 1)
	finish(web, part)
	other := recordingOf("c1")
	other.Workload.Args = []string{"/y"}
	finish(web, other)
	another := recordingOf("c2")
	finish(web, another)
	if r := read("web-c1.json"); len(r.Runs) != 3 {
		t.Errorf("the first is %+v", r)
	}
	if a, b, c := read("web-c1.2.json"), read("web-c1.3.json"), read("web-c1.4.json"); a.Complete || b.Workload.Args[0] != "/y" || c.ID != "c2" {
		t.Errorf("beside it: %+v %+v %+v", a, b, c)
	}
	// A container that the kubelet starts again has a new id, and the same place in its pod.
	pod := &target{name: "web-POD", container: "web", sandbox: "POD", profile: true}
	finish(pod, recordingOf("c7"))
	second := recordingOf("c3")
	second.Syscalls[0].Nr, second.Syscalls[0].Name = 110, "getppid"
	finish(pod, second)
	finish(pod, recordingOf("c3"))
	if r := read("web-POD.json"); r.ID != "c7" || len(r.Runs) != 3 || r.Runs[0].ID != "c3" || r.Runs[1].ID != "c3.2" || !slices.Equal(r.Syscalls[1].Runs, []string{"c3"}) || !r.Complete {
		t.Errorf("after two restarts: %+v", r)
	}
	if data, err := os.ReadFile(filepath.Join(w.dir, "web-POD.profile.json")); err != nil || !bytes.Contains(data, []byte(`"getppid"`)) {
		t.Errorf("the profile is of the last run alone: %s, %v", data, err)
	}
	// A profile beside the recording, where annotations may name no paths.
	finish(&target{name: "x-c1", profile: true}, recordingOf("c1"))
	finish(&target{name: "x-c1", profile: true}, recordingOf("c1"))
	data, err := os.ReadFile(filepath.Join(w.dir, "x-c1.profile.json"))
	if err != nil || !bytes.Contains(data, []byte(`"getpid"`)) || len(read("x-c1.json").Runs) != 2 {
		t.Errorf("got %s, %v", data, err)
	}
	if left, _ := filepath.Glob(filepath.Join(w.dir, ".new*")); left != nil {
		t.Errorf("left: %q", left)
	}
}

func TestTraceOutput(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	o := &options{dir: w.dir, policy: "exact"}
	path := filepath.Join(w.outside, "o.json")
	tg := &target{name: "c1", trace: &annotation.Trace{Output: path}}
	names := func() string {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p, err := profile.ReadProfile(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, r := range p.Syscalls {
			all = append(all, r.Names...)
		}
		return strings.Join(all, " ")
	}
	if after, err := o.finish(tg, recordingOf("c1")); after != nil || err != nil || names() != "getpid" {
		t.Fatal(after, err, names())
	}
	first, err := os.Stat(path)
	if err != nil || first.Mode().Perm() != 0o644 {
		t.Fatal(first, err)
	}
	// In place, over what we wrote and over the empty file that mktemp makes; extended.
	input := filepath.Join(w.outside, "i.json")
	w.write(t, input, `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a_long_name_that_makes_the_file_longer"],"action":"SCMP_ACT_ALLOW"}]}`)
	tg.trace.Input = input
	if after, err := o.finish(tg, recordingOf("c1")); after != nil || err != nil || names() != "a_long_name_that_makes_the_file_longer getpid" {
		t.Fatal(after, err, names())
	}
	tg.trace.Input = ""
	if after, err := o.finish(tg, recordingOf("c1")); after != nil || err != nil || names() != "getpid" {
		t.Fatal(after, err, names())
	}
	if now, err := os.Stat(path); err != nil || !os.SameFile(first, now) {
		t.Errorf("not in place: %v", err)
	}
	w.write(t, path, "")
	if after, err := o.finish(tg, recordingOf("c1")); after != nil || err != nil || names() != "getpid" {
		t.Fatal(after, err, names())
	}
	// root's links lead to directories and inputs.
	if err := os.Symlink(w.outside, filepath.Join(w.top, "link")); err != nil {
		t.Fatal(err)
	}
	tg.trace = &annotation.Trace{Output: filepath.Join(w.top, "link", "o.json"), Input: filepath.Join(w.top, "link", "i.json")}
	if after, err := o.finish(tg, recordingOf("c1")); after != nil || err != nil || !strings.HasPrefix(names(), "a_long") {
		t.Fatal(after, err, names())
	}
	if files, _ := os.ReadDir(w.dir); len(files) > 0 {
		t.Errorf("recordings are kept beside profiles: %v", files)
	}
	// Incomplete: no profile, the recording is the evidence.
	before := names()
	r := recordingOf("c1")
	r.Drop(profile.DropFork, 2)
	after, err := o.finish(tg, r)
	if err != nil || !errors.Is(after, profile.ErrIncomplete) || names() != before {
		t.Errorf("got %v, %v, %s", after, err, names())
	}
	f, err := os.Open(filepath.Join(w.dir, "c1.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if r, err := profile.ReadRecording(f); err != nil || r.Complete {
		t.Errorf("the evidence is %+v, %v", r, err)
	}
}

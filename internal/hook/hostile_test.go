package hook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/annotation"
	"github.com/seccompgen/seccompgen/internal/journal"
	"github.com/seccompgen/seccompgen/profile"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root: whose a file is decides")
	}
}

// systemLog is a log of the test's own: what it returns gives the lines so far.
func systemLog(t *testing.T) func() []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	journal.Socket = path
	t.Cleanup(func() { journal.Socket = ""; c.Close() })
	return func() (lines []string) {
		buf := make([]byte, 65536)
		for {
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			n, err := c.Read(buf)
			if err != nil {
				return lines
			}
			lines = append(lines, string(buf[:n]))
		}
	}
}

// nobody is a pid that no process can have (PID_MAX_LIMIT): what is not refused before fails there.
const nobody = 1 << 22

// world is a host's files for hostile annotations: a bundle, the directory of recordings, and what is outside of it.
type world struct {
	top, bundle, dir, outside string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	top := t.TempDir()
	w := &world{top, filepath.Join(top, "bundle"), filepath.Join(top, "recordings"), filepath.Join(top, "outside")}
	for _, dir := range []string{w.bundle, w.dir, w.outside} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.write(t, filepath.Join(w.bundle, "config.json"), `{"ociVersion":"1.0.2","process":{"cwd":"/","args":["/x"],"user":{}},"root":{"path":"r"}}`)
	w.write(t, filepath.Join(w.outside, "precious"), "precious")
	return w
}

func (w *world) write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// list returns all of a world, with content, type and owner.
func (w *world) list(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(w.top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%s %v %d", path, info.Mode(), info.Sys().(*syscall.Stat_t).Uid)
		if info.Mode().IsRegular() && info.Size() > 1<<20 {
			line += fmt.Sprint(" ", info.Size(), info.ModTime())
		} else if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", data)
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (w *world) state(t *testing.T, status specs.ContainerState, annotations map[string]string) string {
	t.Helper()
	s := specs.State{Version: "1.0.2", ID: "c1", Status: status, Bundle: w.bundle, Annotations: annotations}
	if status != specs.StateStopped {
		s.Pid = nobody
	}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func recordingOf(id string) *profile.Recording {
	return &profile.Recording{
		Version: profile.RecordingVersion, ID: id, Complete: true, Boundary: profile.BoundaryFilter, Runs: []profile.Run{{ID: id, Exit: -1}},
		Workload: profile.Workload{Args: []string{"/x"}},
		Syscalls: []profile.Syscall{{Phase: profile.PhaseWorkload, ABI: specs.ArchX86_64, Nr: 39, Name: "getpid", Runs: []string{id}}},
	}
}

func recordingText(t *testing.T, id string) string {
	t.Helper()
	var b bytes.Buffer
	if err := recordingOf(id).Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// runSoon is Run, which must not wait for what strangers wrote.
func runSoon(t *testing.T, args []string, state string, stderr io.Writer) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- Run(args, strings.NewReader(state), stderr) }()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for something")
		return nil
	}
}

// Hostile values and planted files: each is refused before anything of the kernel is touched, with a line in the log,
// quickly, and with nothing written.
func TestHostileAnnotations(t *testing.T) {
	needRoot(t)
	type list = map[string]string
	record := func(value string) func(*world) list {
		return func(*world) list { return list{annotation.Record: value} }
	}
	trace := func(format string) func(*world) list {
		return func(w *world) list {
			return list{annotation.TraceSyscall: strings.NewReplacer("DIR", w.dir, "OUT", w.outside).Replace(format)}
		}
	}
	plant := func(name string, do func(path string) error) func(*testing.T, *world) {
		return func(t *testing.T, w *world) {
			if err := do(strings.NewReplacer("DIR", w.dir, "OUT", w.outside).Replace(name)); errors.Is(err, unix.EPERM) {
				t.Skipf("SKIPPED: this machine lets nobody make that: %v", err)
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	symlink := func(to string) func(string) error { return func(path string) error { return os.Symlink(to, path) } }
	text := func(text string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(text), 0o644) }
	}
	owned := func(path string) error {
		return errors.Join(os.WriteFile(path, []byte(recordingText(t, "c1")), 0o644), os.Chown(path, 65534, 65534))
	}
	device := func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) }
	fifo := func(path string) error { return unix.Mkfifo(path, 0o666) }
	dir := func(path string) error { return os.Mkdir(path, 0o755) }
	huge := func(path string) error {
		return errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, 1<<40))
	}
	hard := func(path string) error {
		return errors.Join(os.WriteFile(path+".other", []byte(recordingText(t, "c1")), 0o644), os.Link(path+".other", path))
	}
	for _, c := range []struct {
		name        string
		annotations func(*world) list
		plant       func(*testing.T, *world)
		args        []string
		want        string
	}{
		{name: "traversal", annotations: record("../../../../etc/cron.d/x")},
		{name: "dots", annotations: record("..")},
		{name: "dot", annotations: record(".")},
		{name: "a path of the host", annotations: record("/etc/passwd")},
		{name: "a path beneath", annotations: record("sub/name")},
		{name: "NUL", annotations: record("web\x00.json")},
		{name: "newline", annotations: record("web\nseccompgen: all is well")},
		{name: "carriage return", annotations: record("web\r")},
		{name: "terminal", annotations: record("\x1b[2J")},
		{name: "a MiB", annotations: record(strings.Repeat("a", 1<<20-1000)), want: "64"},
		{name: "more than a state may be", annotations: record(strings.Repeat("a", 1<<20)), want: "larger than"},
		{name: "a shell's", annotations: record("$(reboot)")},
		{name: "an option", annotations: record("--output=/etc/passwd")},
		{name: "hidden", annotations: record(".bashrc")},
		{name: "not UTF-8", annotations: func(*world) list { return list{annotation.Record: "\xff\xfe"} }},
		{name: "both annotations", annotations: func(*world) list {
			return list{annotation.Record: "web", annotation.TraceSyscall: "of:/tmp/x"}
		}},
		{name: "the drop-in's grammar", annotations: record("of:/etc/passwd")},

		{name: "planted symlink to a file", annotations: record("web"), plant: plant("DIR/web-c1.json", symlink("../outside/precious")), want: "not a regular file"},
		{name: "planted symlink to nothing", annotations: record("web"), plant: plant("DIR/web-c1.json", symlink("/etc/cron.d/seccompgen-test")), want: "not a regular file"},
		{name: "planted symlink to itself", annotations: record("web"), plant: plant("DIR/web-c1.json", symlink("web-c1.json")), want: "not a regular file"},
		{name: "planted symlink beneath", annotations: record("web"), plant: func(t *testing.T, w *world) {
			plant("DIR/other.json", text(recordingText(t, "c1")))(t, w)
			plant("DIR/web-c1.json", symlink("other.json"))(t, w)
		}, want: "not a regular file"},
		{name: "planted FIFO", annotations: record("web"), plant: plant("DIR/web-c1.json", fifo), want: "not a regular file"},
		{name: "planted device", annotations: record("web"), plant: plant("DIR/web-c1.json", device), want: "not a regular file"},
		{name: "planted directory", annotations: record("web"), plant: plant("DIR/web-c1.json", dir), want: "not a regular file"},
		{name: "another's file", annotations: record("web"), plant: plant("DIR/web-c1.json", owned), want: "not to root"},
		{name: "a foreign file", annotations: record("web"), plant: plant("DIR/web-c1.json", text("root:x:0:0")), want: "not ours"},
		{name: "an empty file", annotations: record("web"), plant: plant("DIR/web-c1.json", text("")), want: "not ours"},
		{name: "a huge file", annotations: record("web"), plant: plant("DIR/web-c1.json", huge), want: "larger than"},
		{name: "a file of two names", annotations: record("web"), plant: plant("DIR/web-c1.json", hard), want: "other names"},
		{name: "a foreign file, by id", annotations: record("true"), plant: plant("DIR/c1.json", text("x")), want: "not ours"},
		{name: "the directory is everybody's", annotations: record("web"), plant: plant("DIR", func(path string) error { return os.Chmod(path, 0o777) }), want: "may be changed by others"},
		{name: "the directory is its group's", annotations: record("web"), plant: plant("DIR", func(path string) error { return os.Chmod(path, 0o775) }), want: "may be changed by others"},
		{name: "the directory is another's", annotations: record("web"), plant: plant("DIR", func(path string) error { return os.Chown(path, 65534, 65534) }), want: "may be changed by others"},

		// Where the annotation may not name paths, as under CRI-O.
		{name: "trace: no grammar", annotations: trace("true")},
		{name: "trace: traversal", annotations: trace("of:/tmp/../etc/passwd")},
		{name: "trace: reads the host", annotations: trace("of:/o.json;if:/etc/shadow"), want: "if: is for"},
		{name: "trace: planted symlink for the profile", annotations: trace("of:/tmp/web.json"), plant: plant("DIR/web-c1.profile.json", symlink("../outside/precious")), want: "not a regular file"},
		{name: "trace: planted FIFO for the recording", annotations: trace("of:/tmp/web.json"), plant: plant("DIR/web-c1.json", fifo), want: "not a regular file"},

		// Where it may.
		{name: "of: traversal", annotations: trace("of:OUT/../outside/new"), args: []string{"--trace-annotation"}},
		{name: "of: relative", annotations: trace("of:new"), args: []string{"--trace-annotation"}},
		{name: "of: a file of the host", annotations: trace("of:/etc/passwd"), args: []string{"--trace-annotation"}, want: "not ours"},
		{name: "of: a precious file", annotations: trace("of:OUT/precious"), args: []string{"--trace-annotation"}, want: "not ours"},
		{name: "of: device", annotations: trace("of:/dev/null"), args: []string{"--trace-annotation"}, want: "not a regular file"},
		{name: "of: terminal", annotations: trace("of:/dev/tty"), args: []string{"--trace-annotation"}, want: "not a regular file"},
		{name: "of: FIFO", annotations: trace("of:OUT/f"), plant: plant("OUT/f", fifo), args: []string{"--trace-annotation"}, want: "not a regular file"},
		{name: "of: directory", annotations: trace("of:OUT"), args: []string{"--trace-annotation"}, want: "not a regular file"},
		{name: "of: symlink", annotations: trace("of:OUT/l"), plant: plant("OUT/l", symlink("precious")), args: []string{"--trace-annotation"}, want: "not a regular file"},
		{name: "of: symlink to nothing", annotations: trace("of:OUT/l"), plant: plant("OUT/l", symlink("new")), args: []string{"--trace-annotation"}, want: "not a regular file"},
		{name: "of: another's directory link", annotations: trace("of:DIR/l/new"), plant: plant("DIR/l", func(path string) error {
			return errors.Join(os.Symlink("../outside", path), os.Lchown(path, 65534, 65534))
		}), args: []string{"--trace-annotation"}, want: "symbolic link of user 65534"},
		{name: "of: no directory", annotations: trace("of:OUT/no/new"), args: []string{"--trace-annotation"}, want: "no such file"},
		{name: "of: another's file", annotations: trace("of:OUT/x"), plant: plant("OUT/x", owned), args: []string{"--trace-annotation"}, want: "not to root"},
		{name: "of: the kernel's settings", annotations: trace("of:/proc/sys/kernel/core_pattern"), args: []string{"--trace-annotation"}, want: "kernel's"},
		{name: "of: a new file in proc", annotations: trace("of:/proc/self/new"), args: []string{"--trace-annotation"}, want: "kernel's"},
		{name: "of: memory", annotations: trace("of:/proc/self/mem"), args: []string{"--trace-annotation"}, want: "kernel's"},
		{name: "of: sysfs", annotations: trace("of:/sys/kernel/uevent_helper"), args: []string{"--trace-annotation"}, want: "kernel's"},
		{name: "of: a MiB", annotations: trace("of:/" + strings.Repeat("a/", 1<<18)), args: []string{"--trace-annotation"}, want: "longer than"},
		{name: "of: NUL", annotations: trace("of:OUT/new\x00.json"), args: []string{"--trace-annotation"}},
		{name: "if: missing", annotations: trace("of:OUT/new;if:OUT/no"), args: []string{"--trace-annotation"}, want: "error reading input file"},
		{name: "if: no profile", annotations: trace("of:OUT/new;if:/etc/passwd"), args: []string{"--trace-annotation"}, want: "error parsing input file"},
		{name: "if: device without an end", annotations: trace("of:OUT/new;if:/dev/zero"), args: []string{"--trace-annotation"}, want: "not a regular file"},
		{name: "if: FIFO", annotations: trace("of:OUT/new;if:OUT/f"), plant: plant("OUT/f", fifo), args: []string{"--trace-annotation"}, want: "not a regular file"},
		{name: "if: the kernel's log", annotations: trace("of:OUT/new;if:/proc/kmsg"), args: []string{"--trace-annotation"}, want: "kernel's"},
		{name: "if: huge", annotations: trace("of:OUT/new;if:OUT/h"), plant: plant("OUT/h", huge), args: []string{"--trace-annotation"}, want: "at most"},
		{name: "if: deep", annotations: trace("of:OUT/new;if:OUT/d"), plant: plant("OUT/d", text(strings.Repeat("[", 500000))), args: []string{"--trace-annotation"}, want: "error parsing input file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines := systemLog(t)
			w := newWorld(t)
			if c.plant != nil {
				c.plant(t, w)
			}
			before := w.list(t)
			annotations := c.annotations(w)
			err := runSoon(t, append(c.args, "--dir", w.dir), w.state(t, specs.StateCreating, annotations), &strings.Builder{})
			if c.name == "more than a state may be" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v", err)
				}
			} else if r := (*annotation.Refusal)(nil); !errors.As(err, &r) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("not refused, or not with %q: %v", c.want, err)
			}
			if err != nil && (len(err.Error()) > 1000 || strings.ContainsFunc(err.Error(), func(c rune) bool { return c < ' ' })) {
				t.Errorf("not one clear line: %q", err)
			}
			if after := w.list(t); !slices.Equal(before, after) {
				t.Errorf("something was written:\n%s\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
			got := lines()
			if len(got) != 1 || !strings.Contains(got[0], " seccompgen[") || !strings.Contains(got[0], `event="`) || strings.Contains(strings.TrimSuffix(got[0], "\n"), "\n") || len(got[0]) > 8192 {
				t.Errorf("the log has %q", got)
			}
			// --optional lets the container run, and says so.
			var stderr strings.Builder
			err = runSoon(t, append(c.args, "--optional", "--dir", w.dir), w.state(t, specs.StateCreating, annotations), &stderr)
			if c.name != "more than a state may be" && (err != nil || !strings.Contains(stderr.String(), "unrecorded") || len(lines()) != 1) {
				t.Errorf("optional: %v, %q", err, stderr.String())
			}
		})
	}
	if _, err := os.Lstat("/etc/cron.d/seccompgen-test"); err == nil {
		t.Error("/etc/cron.d/seccompgen-test was written")
	}
}

// What is planted while the container runs is refused when the recording is written.
func TestPlantedMeanwhile(t *testing.T) {
	needRoot(t)
	for name, plant := range map[string]func(path string) error{
		"symlink": func(path string) error { return os.Symlink("../outside/precious", path) },
		"fifo":    func(path string) error { return unix.Mkfifo(path, 0o666) },
		"foreign": func(path string) error { return os.WriteFile(path, []byte("x"), 0o644) },
		"device": func(path string) error {
			if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); !errors.Is(err, unix.EPERM) {
				return err
			}
			return unix.Mkfifo(path, 0o666)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			o := &options{dir: w.dir, policy: "exact"}
			if err := plant(filepath.Join(w.dir, "web-c1.json")); err != nil {
				t.Fatal(err)
			}
			if err := plant(filepath.Join(w.outside, "o")); err != nil {
				t.Fatal(err)
			}
			before := w.list(t)
			if _, err := o.finish(&target{name: "web-c1"}, recordingOf("c1")); err == nil {
				t.Error("the recording is written") // and stays in the recorder, being refused
			}
			if after := w.list(t); !slices.Equal(before, after) {
				t.Errorf("something was written: %q", after)
			}
			// The profile is refused; the recording is kept as evidence.
			after, err := o.finish(&target{name: "c1", trace: &annotation.Trace{Output: filepath.Join(w.outside, "o")}}, recordingOf("c1"))
			if after == nil || err != nil {
				t.Errorf("the profile is written: %v, %v", after, err)
			}
			data, err := os.ReadFile(filepath.Join(w.dir, "c1.json"))
			if err == nil {
				_, err = profile.ReadRecording(bytes.NewReader(data))
			}
			if err != nil {
				t.Errorf("the evidence is missing: %v", err)
			}
			if err := os.Remove(filepath.Join(w.dir, "c1.json")); err != nil {
				t.Fatal(err)
			}
			if after := w.list(t); !slices.Equal(before, after) {
				t.Errorf("something else was written: %q", after)
			}
		})
	}
}

// Who did not ask is left alone, whatever else is wrong, and at once.
func TestNotAsked(t *testing.T) {
	lines := systemLog(t)
	w := newWorld(t)
	before := w.list(t)
	bad := strings.Replace(w.state(t, specs.StateCreating, nil), fmt.Sprint(nobody), "1", 1)
	for name, state := range map[string]string{
		"no annotations":       w.state(t, specs.StateCreating, nil),
		"others":               w.state(t, specs.StateCreating, map[string]string{"a": "b", annotation.TraceSyscall + "/web": "of:/x", annotation.Record + "/web": "../x"}),
		"false":                w.state(t, specs.StateCreating, map[string]string{annotation.Record: "false"}),
		"sandbox":              w.state(t, specs.StateCreating, map[string]string{annotation.Record: "../x", "io.kubernetes.cri-o.ContainerType": "sandbox"}),
		"stopped":              w.state(t, specs.StateStopped, nil),
		"a state of no sense":  bad,
		"no JSON":              "hello",
		"larger than it may":   w.state(t, specs.StateCreating, map[string]string{"a": strings.Repeat("b", 2<<20)}),
		"a bundle that is not": strings.Replace(w.state(t, specs.StateCreating, nil), w.bundle, "/nonexistent", 1),
	} {
		for _, args := range [][]string{nil, {"--trace-annotation"}, {"--optional", "--denials", "poststop"}} {
			var stderr strings.Builder
			if err := Run(args, strings.NewReader(state), &stderr); err != nil || stderr.Len() > 0 {
				t.Errorf("%s %q: %v, %q", name, args, err, stderr.String())
			}
		}
	}
	if after := w.list(t); !slices.Equal(before, after) {
		t.Errorf("something was written: %q", after)
	}
	said := lines()
	for _, line := range said {
		if !strings.Contains(line, `event="unmatched" container="c1" name="" annotations="dev.seccompgen.record/web io.containers.trace-syscall/web"`) {
			t.Errorf("the log has %q", line)
		}
	}
	if len(said) != 3 {
		t.Errorf("the log has %d lines", len(said))
	}
}

// A state without annotations is crun's at some stages: the configuration has them.
func TestAnnotationsOfTheConfiguration(t *testing.T) {
	w := newWorld(t)
	w.write(t, filepath.Join(w.bundle, "config.json"), `{"annotations":{"dev.seccompgen.record":"../x"},"process":{"cwd":"/","args":["/x"]}}`)
	for _, status := range []specs.ContainerState{specs.StateCreated, specs.StateStopped} {
		err := Run(nil, strings.NewReader(w.state(t, status, nil)), &strings.Builder{})
		if r := (*annotation.Refusal)(nil); !errors.As(err, &r) {
			t.Errorf("%s: got %v", status, err)
		}
	}
}

func TestTargets(t *testing.T) {
	type list = map[string]string
	s := &specs.State{ID: "c1"}
	for _, c := range []struct {
		args        []string
		annotations list
		want        string
	}{
		{[]string{"--output", "/o"}, nil, "/o"},
		{[]string{"--dir", "/d"}, nil, "/d/c1.json"},
		{[]string{"--dir", "/d"}, list{annotation.Record: "web"}, "/d/web-c1.json"},
		{nil, list{annotation.Record: "web"}, DefaultDir + "/web-c1.json"},
		{nil, list{annotation.Record: "true"}, DefaultDir + "/c1.json"},
		{nil, list{annotation.Record: ""}, DefaultDir + "/c1.json"},
		{nil, list{annotation.TraceSyscall: "of:/etc/x.json"}, DefaultDir + "/x-c1.json and profile"},
		{nil, list{annotation.TraceSyscall: "of:/etc/.x y"}, DefaultDir + "/c1.json and profile"},
		{[]string{"--trace-annotation"}, list{annotation.TraceSyscall: "of:/tmp/x.json"}, "/tmp/x.json"},
		{[]string{"--trace-annotation"}, list{annotation.Record: "web"}, DefaultDir + "/web-c1.json"},
	} {
		o, err := parse(c.args, &strings.Builder{})
		if err != nil {
			t.Fatal(err)
		}
		tg, err := o.target(s, c.annotations)
		if err != nil {
			t.Errorf("%q %v: %v", c.args, c.annotations, err)
			continue
		}
		got := o.outputOf(tg)
		if tg.profile {
			got += " and profile"
		}
		if got != c.want {
			t.Errorf("%q %v: got %s, want %s", c.args, c.annotations, got, c.want)
		}
	}
}

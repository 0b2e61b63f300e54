package engines

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
)

// serverFS makes a root file system with testdata/server, the same without optimization, and an init.
func serverFS(t testing.TB) string {
	t.Helper()
	rootfs := rootFS(t)
	for name, flags := range map[string]string{"server": "", "server-N": "-gcflags=all=-N -l"} {
		cmd := exec.Command("go", "build", flags, "-o", filepath.Join(rootfs, "bin", name), "./testdata/server")
		cmd.Args = slices.DeleteFunc(cmd.Args, func(arg string) bool { return arg == "" })
		cmd.Dir, cmd.Env = lab.Repo, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build the server: %v\n%s", err, out)
		}
	}
	lab.CopyFile(t, lab.NeedTool(t, "tini-static"), filepath.Join(rootfs, "bin/tini"))
	return rootfs
}

// entrypoints start Go programs; SERVER stands for what one does.
var entrypoints = map[string]struct {
	command  []string
	programs []string // that run
}{
	"itself":      {[]string{"/bin/server", "SERVER"}, []string{"/bin/server"}},
	"unoptimized": {[]string{"/bin/server-N", "SERVER"}, []string{"/bin/server-N"}},
	"shell":       {[]string{"/bin/sh", "-c", "/bin/server SERVER; exit $?"}, []string{"/bin/busybox", "/bin/server"}},
	"tini":        {[]string{"/bin/tini", "-s", "--", "/bin/server", "SERVER"}, []string{"/bin/server", "/bin/tini"}},
	"two":         {[]string{"/bin/sh", "-c", "/bin/server SERVER && /bin/server-N SERVER; exit $?"}, []string{"/bin/busybox", "/bin/server", "/bin/server-N"}},
}

// runner runs containers of a root file system in one way: recorded, and then under a profile. Each has a name of its own.
type runner struct {
	record func(name string, command []string) (recording string, r result)
	run    func(name, profile string, command []string) result
	kill   func(name, signal string) result // nil where no test needs it
}

// holds records what a Go program calls in a moment, builds a profile with what build does by default, and keeps the program
// busy under it: whatever Go's runtime calls that was not seen in the moment kills it.
func (r runner) holds(t *testing.T) {
	t.Helper()
	const runs = 3
	for name, e := range entrypoints {
		t.Run(name, func(t *testing.T) {
			command := func(does string) []string {
				words := slices.Clone(e.command)
				for i := range words {
					words[i] = strings.ReplaceAll(words[i], "SERVER", does)
				}
				if last := len(words) - 1; e.command[last] == "SERVER" {
					return slices.Concat(words[:last], strings.Fields(does))
				}
				return words
			}
			path, first := r.record(name, command("0.1"))
			if first.exit != 0 {
				t.Fatal(first)
			}
			ran(t, lab.ReadRecording(t, path), e.programs...)
			prof := filepath.Join(t.TempDir(), "profile.json")
			if built := run(t, toolPath, "build", "--deny", "kill", "-o", prof, path); built.exit != 0 || strings.Contains(built.stderr, "is not known") {
				t.Fatal(built)
			}
			var group sync.WaitGroup
			for i := range runs {
				group.Go(func() {
					if got := r.run(fmt.Sprintf("%s-%d", name, i), prof, command("-load 2")); got.exit != 0 {
						t.Errorf("under the profile: %s", got)
					}
				})
			}
			group.Wait()
		})
	}
}

// ran checks that these programs and no others were seen and read, and which of them are Go's.
func ran(t testing.TB, r *profile.Recording, want ...string) {
	t.Helper()
	var got []string
	for _, p := range r.Programs {
		got = append(got, p.Path)
		if isGo := strings.Contains(p.Path, "server"); p.Unread != "" || (p.Static != nil) != isGo || (p.Go != "") != isGo {
			t.Errorf("program %s: %q, Go %q, analyzed %v", p.Path, p.Unread, p.Go, p.Static != nil)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("programs %q ran, want %q", got, want)
	}
}

// TestProgramsInABundle runs the hook from a bundle's own config.json, as its first user will.
func TestProgramsInABundle(t *testing.T) {
	rootfs := serverFS(t)
	eachRuntime(t, func(t *testing.T, runtime string) {
		bundle := func(command []string, change func(spec map[string]any)) string {
			dir := t.TempDir()
			cmd := exec.Command(runtime, "spec")
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			config := filepath.Join(dir, "config.json")
			data, err := os.ReadFile(config)
			if err != nil {
				t.Fatal(err)
			}
			var spec map[string]any
			if err := json.Unmarshal(data, &spec); err != nil {
				t.Fatal(err)
			}
			spec["root"] = map[string]any{"path": rootfs}
			process := spec["process"].(map[string]any)
			process["args"], process["terminal"] = command, false
			change(spec)
			if data, err = json.Marshal(spec); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(config, data, 0o600); err != nil {
				t.Fatal(err)
			}
			return dir
		}
		runner{
			record: func(name string, command []string) (string, result) {
				output := filepath.Join(t.TempDir(), "recording.json")
				hook := []map[string]any{{"path": hookPath, "args": []string{"oci-hook", "--output", output}}}
				dir := bundle(command, func(spec map[string]any) {
					spec["hooks"] = map[string]any{"createRuntime": hook, "poststop": hook}
					spec["linux"].(map[string]any)["seccomp"] = map[string]any{"defaultAction": "SCMP_ACT_ALLOW"}
				})
				return output, run(t, runtime, "run", "--bundle", dir, "sgp-"+name)
			},
			run: func(name, prof string, command []string) result {
				data, err := os.ReadFile(prof)
				if err != nil {
					t.Error(err)
				}
				dir := bundle(command, func(spec map[string]any) { spec["linux"].(map[string]any)["seccomp"] = json.RawMessage(data) })
				return run(t, runtime, "run", "--bundle", dir, "sgp-"+name)
			},
		}.holds(t)
	})
}

func TestProgramsUnderPodman(t *testing.T) {
	rootfs := serverFS(t)
	eachRuntime(t, func(t *testing.T, runtime string) { podmanRunner(t, runtime, rootfs, "none").holds(t) })
}

// podmanRunner runs containers of an image made of rootfs.
func podmanRunner(t *testing.T, runtime, rootfs, network string) runner {
	p := newPodman(t, runtime)
	p.ok(p.do("load", "--input", image(t, rootfs, "localhost/server:1", "/bin/true")))
	run := func(name, option string, command []string) result {
		return p.do(slices.Concat([]string{"run", "--rm", "--name", name, "--ulimit", "nofile=1024:20000", "--ulimit", "nproc=4096:4096", "--network", network}, strings.Fields(option), []string{"localhost/server:1"}, command)...)
	}
	return runner{
		func(name string, command []string) (string, result) {
			r := run(name, "--annotation "+record+"=programs-"+name, command)
			return recordings(t, "programs-"+name+"-", 1)[0], r
		},
		func(name, prof string, command []string) result {
			return run(name, "--security-opt seccomp="+prof, command)
		},
		func(name, signal string) result { return p.do("kill", "--signal", signal, name) },
	}
}

func TestProgramsUnderDocker(t *testing.T) {
	rootfs := serverFS(t)
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) { dockerRunner(t, runtime, rootfs, "none").holds(t) })
	}
}

func dockerRunner(t *testing.T, runtime, rootfs, network string) runner {
	name := "seccompgen"
	if runtime == "crun" {
		name = "seccompgen-crun"
		writeFile(t, "/etc/docker/daemon.json", fmt.Sprintf("{\"runtimes\": {%q: {\"path\": %q}}}\n", name, withHook(t, runtime)))
	}
	d := newDocker(t)
	clearRecordings(t)
	d.ok(d.do("load", "--input", image(t, rootfs, "server:1", "/bin/true")))
	run := func(id, option string, command []string) result {
		return d.do(slices.Concat([]string{"run", "--rm", "--name", id, "--network", network, "--runtime", name}, strings.Fields(option), []string{"server:1"}, command)...)
	}
	return runner{
		func(name string, command []string) (string, result) {
			r := run(name, "--env SECCOMPGEN_RECORD=programs-"+name, command)
			return recordings(t, "programs-"+name+"-", 1)[0], r
		},
		func(name, prof string, command []string) result {
			return run(name, "--security-opt seccomp="+prof, command)
		},
		func(name, signal string) result { return d.do("kill", "--signal", signal, name) },
	}
}

// withHook returns the runtime with the hook, as the administrator links it. What it finds in PATH until the test ends is a
// runtime that runs here.
func withHook(t *testing.T, runtime string) string {
	t.Helper()
	path := filepath.Join(worldDir, "bin", "seccompgen-"+runtime)
	if runtime == "runc" {
		return path
	}
	if err := os.Symlink("seccompgen-runc", path); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(lab.FindCrun(t, filepath.Join(worldDir, "bin")), filepath.Join(dir, runtime)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return path
}

// writeFile makes a file of the administrator's, until the test ends.
func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	})
}

func TestProgramsUnderContainerd(t *testing.T) {
	rootfs := serverFS(t)
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) { ctrRunner(t, runtime, rootfs).holds(t) })
	}
}

func ctrRunner(t *testing.T, runtime, rootfs string, flags ...string) runner {
	lab.NeedTool(t, "containerd")
	binary := withHook(t, runtime)
	c := newContainerd(t, config16, "", rootfs)
	clearRecordings(t)
	ctr := []string{"--address", c.dir + "/sock", "--namespace", "k8s.io"}
	do := func(args []string) result { return run(t, filepath.Join(c.bin, "ctr"), args...) }
	run := func(id, option string, command []string) result {
		args := slices.Concat(ctr, []string{"run", "--rm", "--snapshotter", snapshotter(), "--runc-binary", binary, "--seccomp"})
		return do(slices.Concat(args, flags, strings.Fields(option), []string{"localhost/lab:1", id}, command))
	}
	return runner{
		func(name string, command []string) (string, result) {
			r := run(name, "--env SECCOMPGEN_RECORD=programs", command)
			return recordings(t, "programs-"+name, 1)[0], r
		},
		func(name, prof string, command []string) result {
			return run(name, "--seccomp-profile "+prof, command)
		},
		func(name, signal string) result {
			return do(slices.Concat(ctr, []string{"task", "kill", "--signal", signal, name}))
		},
	}
}

// TestProgramsUnknown: what cannot be read is said, and costs the profile its narrowness, never the program its life.
func TestProgramsUnknown(t *testing.T) {
	p, rootfs := newPodman(t, lab.NeedTool(t, "runc")), serverFS(t)
	clearRecordings(t)
	// /dev/shm goes with the container, and with it the copy that runs.
	command := func(does string) []string {
		return []string{"--rootfs", rootfs, "/bin/sh", "-c", "cat /bin/server >/dev/shm/copy && chmod 700 /dev/shm/copy && exec /dev/shm/copy " + does}
	}
	exec := []string{"--rm", "--tmpfs", "/dev/shm:exec"}
	p.ok(p.run(slices.Concat(exec, []string{"--annotation", record + "=unknown"}, command("0.1"))...))
	path := recordings(t, "unknown-", 1)[0]
	r := lab.ReadRecording(t, path)
	i := slices.IndexFunc(r.Programs, func(p profile.Program) bool { return p.Path == "/dev/shm/copy" })
	if i < 0 || !strings.Contains(r.Programs[i].Unread, "gone with the container") {
		t.Fatalf("programs are %+v", r.Programs)
	}
	prof := filepath.Join(t.TempDir(), "profile.json")
	built := run(t, toolPath, "build", "--deny", "kill", "-o", prof, path)
	if built.exit != 0 || !strings.Contains(built.stderr, "in /dev/shm/copy calls is not known: it lay in a mount that has gone with the container") {
		t.Fatal(built)
	}
	if !slices.Contains(allowed(t, prof), "tgkill") {
		t.Error("the profile lacks what Go's runtime calls")
	}
	p.ok(p.run(slices.Concat(exec, []string{"--security-opt", "seccomp=" + prof}, command("-load 2"))...))
}

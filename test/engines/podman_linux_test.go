package engines

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
)

const (
	record = "dev.seccompgen.record"
	trace  = "io.containers.trace-syscall"
)

// A static program is recorded, its profile built, and run again under it.
func TestRecordBuildRun(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		p, rootfs := newPodman(t, runtime), rootFS(t)
		var needs []string // what the runtime calls under a filter, as recorded under Podman's default one
		for _, filter := range []string{"default", "unconfined"} {
			args := []string{"--rm", "--annotation", record + "=" + filter}
			boundary := profile.BoundaryFilter
			if filter == "unconfined" {
				args = append(args, "--security-opt", "seccomp=unconfined")
				boundary = profile.BoundaryExecve
			}
			command := []string{"--rootfs", rootfs, "/bin/sh", "-c", "ls / && echo hello"}
			first := p.ok(p.run(slices.Concat(args, command)...))
			path := recordings(t, filter+"-", 1)[0]
			r := lab.ReadRecording(t, path)
			if !r.Complete || r.Boundary != boundary || filepath.Base(r.Runtime.Name) != strings.SplitN(filepath.Base(runtime), "-", 2)[0] || r.Runtime.Version == "" {
				t.Fatalf("%s: got complete %v, boundary %s, runtime %+v, %v", filter, r.Complete, r.Boundary, r.Runtime, r.Dropped)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
				t.Errorf("the recording's file is %v, %v", info, err)
			}
			prof := filepath.Join(t.TempDir(), "profile.json")
			if built := run(t, toolPath, "build", "-o", prof, path); built.exit != 0 {
				if strings.Contains(built.stderr, "were not measured") {
					t.Logf("SKIPPED: %s: %s", filter, built.stderr)
					continue
				}
				t.Fatal(built)
			}
			if filter == "default" {
				needs = names(r, profile.PhaseRuntime)
			}
			// Without a filter the runtime's own calls come from profile/baselines.json, which may not know create and start.
			if lacks := slices.DeleteFunc(slices.Clone(needs), func(n string) bool { return slices.Contains(allowed(t, prof), n) }); len(lacks) > 0 {
				t.Logf("SKIPPED: %s: the measured needs of %s %s lack %q, which it calls under Podman", filter, r.Runtime.Name, r.Runtime.Version, lacks)
				continue
			}
			for range 10 {
				again := p.run(slices.Concat([]string{"--rm", "--annotation", record + "=again-" + filter, "--security-opt", "seccomp=" + prof}, command)...)
				if again.exit != 0 || again.stdout != first.stdout || again.stderr != first.stderr {
					t.Fatalf("under the profile of %q: %s\nwant %s", allowed(t, prof), again, first)
				}
			}
			noNewDenials(t, r, "again-"+filter, 10)
			if blocked := p.run("--rm", "--security-opt", "seccomp="+prof, "--rootfs", rootfs, "/bin/sh", "-c", "mkdir /tmp-x"); blocked.exit == 0 {
				t.Errorf("%s: the profile lets pass what was not recorded: %s", filter, blocked)
			}
		}
	})
}

// The tests of a Go package, in an image that Podman imported.
func TestGoTestInAnImage(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		p, rootfs := newPodman(t, runtime), rootFS(t)
		goTest(t, "encoding/hex", filepath.Join(rootfs, "bin/hex.test"))
		tar := filepath.Join(t.TempDir(), "rootfs.tar")
		if r := run(t, "tar", "-C", rootfs, "-cf", tar, "."); r.exit != 0 {
			t.Fatal(r)
		}
		p.ok(p.do("import", "-c", "ENV PATH=/bin", tar, "localhost/lab"))
		command := []string{"localhost/lab", "/bin/hex.test", "-test.v"}
		first := p.ok(p.run(slices.Concat([]string{"--rm", "--annotation", record + "=hex"}, command)...))
		path := recordings(t, "hex-", 1)[0]
		prof := filepath.Join(t.TempDir(), "profile.json")
		if r := run(t, toolPath, "build", "-o", prof, "--binary", filepath.Join(rootfs, "bin/hex.test"), path); r.exit != 0 {
			t.Fatal(r)
		}
		for range 10 {
			again := p.run(slices.Concat([]string{"--rm", "--annotation", record + "=again", "--security-opt", "seccomp=" + prof}, command)...)
			if again.exit != 0 || strings.Count(again.stdout, "--- PASS") != strings.Count(first.stdout, "--- PASS") {
				t.Fatalf("under the profile of %q: %s", allowed(t, prof), again)
			}
		}
		noNewDenials(t, lab.ReadRecording(t, path), "again-", 10)
	})
}

// What users of oci-seccomp-bpf-hook do, with their annotation.
func TestDropIn(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		p, rootfs := newPodman(t, runtime), rootFS(t)
		dir := t.TempDir()
		tmp := func(name, text string) string { // as mktemp makes it
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		traced := func(annotation string, command ...string) result {
			t.Helper()
			return p.ok(p.run(slices.Concat([]string{"--rm", "--annotation", trace + "=" + annotation, "--rootfs", rootfs}, command)...))
		}
		under := func(profile string, command ...string) result {
			t.Helper()
			return p.run(slices.Concat([]string{"--rm", "--security-opt", "seccomp=" + profile, "--rootfs", rootfs}, command)...)
		}
		written := func(path string) {
			t.Helper()
			// Those users wait two seconds.
			wait(t, path, func() bool { info, err := os.Stat(path); return err == nil && info.Size() > 0 })
		}

		one := tmp("one.json", "")
		before, err := os.Stat(one)
		if err != nil {
			t.Fatal(err)
		}
		traced("of:"+one, "/bin/ls", "/")
		written(one)
		if after, err := os.Stat(one); err != nil || !os.SameFile(before, after) {
			t.Errorf("not written in place: %v", err)
		}
		robust := allowed(t, one)
		for range 30 {
			p.ok(under(one, "/bin/ls", "/"))
		}
		if r := under(one, "/bin/mkdir", "/foo"); r.exit == 0 {
			t.Errorf("a call that was not traced is let pass: %s", r)
		}

		created := filepath.Join(dir, "created.json")
		traced("of:"+created, "/bin/true")
		written(created)
		if info, err := os.Stat(created); err != nil || info.Mode() != 0o644 {
			t.Errorf("created as %v, %v", info, err)
		}

		// Extend.
		two := tmp("two.json", "")
		traced("if:"+one+";of:"+two, "/bin/sh", "-c", "mkdir /foo && rmdir /foo")
		written(two)
		if got := allowed(t, two); !slices.Contains(got, "mkdir") || slices.Contains(allowed(t, one), "mkdir") {
			t.Errorf("extended to %q", got)
		}
		for _, name := range allowed(t, one) {
			if !slices.Contains(allowed(t, two), name) {
				t.Errorf("%s is lost", name)
			}
		}
		p.ok(under(two, "/bin/ls", "/"))
		p.ok(under(two, "/bin/sh", "-c", "mkdir /foo && rmdir /foo"))

		// What the input blocks stays blocked, whatever was traced.
		block := tmp("block.json", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_AARCH64"],"syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`)
		traced("of:"+one+";if:"+block, "/bin/sh", "-c", "mkdir /foo && rmdir /foo")
		wait(t, "the profile to be written again", func() bool {
			data, err := os.ReadFile(one)
			return err == nil && strings.Contains(string(data), "rmdir")
		})
		if got := allowed(t, one); slices.Contains(got, "mkdir") || slices.Contains(got, "mkdirat") || !slices.Contains(got, "rmdir") {
			t.Errorf("allowed: %q", got)
		}
		if r := under(one, "/bin/mkdir", "/foo"); r.exit == 0 {
			t.Errorf("mkdir is let pass: %s", r)
		}

		// The profile that containers-common ships is an input like any other.
		if _, err := os.Stat("/usr/share/containers/seccomp.json"); err == nil {
			three := filepath.Join(dir, "three.json")
			traced("if:/usr/share/containers/seccomp.json;of:"+three, "/bin/ls", "/")
			written(three)
			p.ok(under(three, "/bin/ls", "/"))
		}

		// --trace-policy exact leaves out what another run of a Go runtime may need.
		edit(t, hooksDir+"/seccompgen-trace.json", `"--trace-annotation"`, `"--trace-annotation", "--trace-policy", "exact"`)
		exact := filepath.Join(dir, "exact.json")
		traced("of:"+exact, "/bin/ls", "/")
		written(exact)
		if got := allowed(t, exact); !slices.Contains(got, "getdents64") || slices.Contains(got, "tgkill") || !strings.Contains(runtime, "crun") && !slices.Contains(robust, "tgkill") {
			t.Errorf("exact is %q, robust %q", got, robust)
		}

		// A shared output: all end, the last one wins.
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() { traced("of:"+one, "/bin/ls", "/") })
		}
		wg.Wait()
		if files, _ := os.ReadDir(recordingsDir); len(files) > 0 {
			t.Errorf("recordings beside profiles: %v", files)
		}
	})
}

// A malformed annotation refuses the container, in words that help; with others beside it nothing happens.
func TestRefusals(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		p, rootfs := newPodman(t, runtime), rootFS(t)
		marker := filepath.Join(rootfs, "ran")
		dir := t.TempDir()
		for _, c := range []struct{ annotation, want string }{
			{trace + "=true", "must start"},
			{trace + "=of:relative.json", "output file path must be absolute"},
			{trace + "=if:/etc/passwd", "output file is mandatory"},
			{trace + "=if:/a;if:/b;of:/c", "more than one semi-colon"},
			{trace + "=if:/etc/passwd;of:" + dir + "/o", "error parsing input file"},
			{trace + "=if:" + dir + "/no;of:" + dir + "/o", "error reading input file"},
			{trace + "=of:/etc/passwd", "not ours to replace"},
			{trace + "=of:/dev/null", "not a regular file"},
			{trace + "=of:/proc/sys/kernel/core_pattern", "kernel's"},
			{record + "=../../../etc/cron.d/x", "a name has"},
			{record + "=/etc/passwd", "a name has"},
			{record + "=" + strings.Repeat("a", 100000), "a name has"},
		} {
			// crun gives its hooks no stderr unless it is told where to.
			stderr := filepath.Join(t.TempDir(), "stderr")
			r := p.run("--rm", "--annotation", c.annotation, "--annotation", "run.oci.hooks.stderr="+stderr, "--rootfs", rootfs, "/bin/sh", "-c", "echo > /ran")
			said, err := os.ReadFile(stderr)
			if err != nil && strings.Contains(runtime, "crun") {
				t.Fatal(err)
			}
			said = append(said, r.stderr...)
			if r.exit == 0 || !strings.Contains(string(said), c.want) || !strings.Contains(string(said), "seccompgen: record container") {
				t.Errorf("%.100q: want a refusal with %q, got %.3000s\n%.1000s", c.annotation, c.want, r, said)
			}
			if _, err := os.Stat(marker); err == nil {
				t.Fatalf("%.100q: the container ran", c.annotation)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "o")); !errors.Is(err, fs.ErrNotExist) {
			t.Error("something was written")
		}
		noRecordings(t)
	})
}

// Who does not ask is not touched: the hook is not even called.
func TestUntouched(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		p, rootfs := newPodman(t, runtime), rootFS(t)
		called := filepath.Join(t.TempDir(), "called")
		script := filepath.Join(p.dir, "hook")
		if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"called $@\" >> "+called+"\nexec "+hookPath+" \"$@\" 2>>"+called+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		files, _ := filepath.Glob(hooksDir + "/*")
		for _, file := range files {
			edit(t, file, hookPath, script)
		}
		p.ok(p.run("--rm", "--rootfs", rootfs, "/bin/ls", "/"))
		p.ok(p.run("--rm", "--annotation", "a=b", "--annotation", record+"er=x", "--rootfs", rootfs, "/bin/ls", "/"))
		if _, err := os.Stat(called); err == nil {
			t.Error("the hook was called")
		}
		// An engine that calls it for all: nothing is recorded either, and broken hosts break nobody.
		for _, file := range files[1:] {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
		text := fmt.Sprintf(`{"version":"1.0.0","hook":{"path":%q,"args":["oci-hook"]},"when":{"always":true},"stages":["prestart","createRuntime","poststop"]}`, script)
		if err := os.WriteFile(files[0], []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // as install had it
			if err := os.Remove(files[0]); err != nil {
				t.Error(err)
			}
			p.ok(run(t, toolPath, "install", "podman"))
		})
		p.ok(p.run("--rm", "--annotation", "a=b", "--rootfs", rootfs, "/bin/ls", "/"))
		if data, err := os.ReadFile(called); err != nil || strings.Count(string(data), "called") < 2 {
			t.Errorf("the hook was not called: %q, %v", data, err)
		}
		noRecordings(t)
		// Registered for prestart and createRuntime both, it records once.
		p.ok(p.run("--rm", "--annotation", record+"=true", "--rootfs", rootfs, "/bin/ls", "/"))
		if r := lab.ReadRecording(t, recordings(t, "", 1)[0]); !r.Complete {
			said, _ := os.ReadFile(called)
			t.Errorf("got %+v: %s", r.Dropped, said)
		}
	})
}

// As the documentation says it: install, probe, uninstall; what is wrong is said.
func TestProbe(t *testing.T) { // a minute: what does not come has its time to come
	eachRuntime(t, func(t *testing.T, runtime string) {
		p := newPodmanFor(t, runtime)
		probe := func(want string, exit int) {
			t.Helper()
			r := run(t, toolPath, "status", "--probe", "podman")
			if r.exit != exit || !contains(want, r.stdout, r.stderr) {
				t.Errorf("want exit %d and %q: %s", exit, want, r)
			}
			if left := p.ok(p.do("ps", "--all", "--quiet")).stdout; left != "" {
				t.Errorf("a container is left: %s", left)
			}
			noRecordings(t)
		}
		probe("nothing of ours is registered where it looks: seccompgen install podman", 1)
		install(t, "podman")
		probe("podman records: a container under "+strings.Split(filepath.Base(runtime), "-")[0], 0)
		record := hooksDir + "/seccompgen-record.json"
		edit(t, record, `"createRuntime",`, "")
		probe("evidence is missing: map[collect:1]", 1)
		edit(t, record, `"poststop"`, `"createRuntime"`)
		probe("was called at its start, and not after its end", 1)
		edit(t, record, "^dev", "^another")
		probe("nothing called the hook", 1)
		edit(t, record, "^another", "^dev")
		edit(t, record, `"oci-hook"`, `"oci-hook", "--no-such-flag"`)
		probe("flag provided but not defined", 1)
	})
}

// CRI-O is not to be had here. Its hook files are read by Podman, where nobody has set it up, and called with the annotations
// that CRI-O makes of a pod's.
func TestFilesForCRIO(t *testing.T) {
	p, rootfs := newPodmanFor(t, lab.NeedTool(t, "runc")), rootFS(t)
	install(t, "crio")
	clearRecordings(t)
	annotated := func(annotations ...string) result {
		args := []string{"--rm"}
		for _, a := range annotations {
			args = append(args, "--annotation", a)
		}
		return p.run(append(args, "--rootfs", rootfs, "/bin/ls", "/")...)
	}
	outside := filepath.Join(t.TempDir(), "web.json")
	p.ok(annotated(trace + "=of:" + outside))
	files := recordings(t, "web-", 2)
	if r := lab.ReadRecording(t, files[0]); !r.Complete || files[1] != strings.TrimSuffix(files[0], ".json")+".profile.json" {
		t.Errorf("got %q, %v", files, r.Dropped)
	}
	if got := allowed(t, files[1]); !slices.Contains(got, "getdents64") {
		t.Errorf("allowed: %q", got)
	}
	if _, err := os.Stat(outside); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s was written", outside)
	}
	clearRecordings(t)
	if r := annotated(trace + "=of:" + outside + ";if:/usr/share/containers/seccomp.json"); r.exit == 0 || !contains("if: is for hooks", r.stderr) {
		t.Errorf("if: is honoured: %s", r)
	}
	const name, kind, sandbox = "io.kubernetes.cri-o.Name", "io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"
	p.ok(annotated(trace+"/web=of:/x", name+"=k8s_db_shop_default_uid_0"))
	p.ok(annotated(record+"/web=x", name+"=k8s_db_shop_default_uid_0"))
	p.ok(annotated(record+"=x", kind+"=sandbox"))
	noRecordings(t)
	for attempt := range 2 {
		p.ok(annotated(record+"/web=one", fmt.Sprintf("%s=k8s_web_shop_default_uid_%d", name, attempt), kind+"=container", sandbox+"=pod"))
		withRuns(t, recordingsDir+"/one-web-pod.json", attempt+1)
	}
	recordings(t, "", 1)
	clearRecordings(t)

	// Beside Podman's files, which let an annotation name a path: a pod's does not, and Podman's own does.
	install(t, "podman")
	p.ok(annotated(trace+"=of:"+outside, name+"=k8s_web_shop_default_uid_0", "io.container.manager=libpod", kind+"=container"))
	recordings(t, "web-", 2)
	if _, err := os.Stat(outside); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s was written", outside)
	}
	p.ok(annotated(trace + "=of:" + outside))
	wait(t, outside, func() bool { _, err := os.Stat(outside); return err == nil })
	clearRecordings(t)
}

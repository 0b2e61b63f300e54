package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// host makes a host with our programs, and engines that say their versions.
func host(t *testing.T, containerd string) *Host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root: what engines run must be root's")
	}
	h := &Host{Root: t.TempDir(), Dir: t.TempDir()}
	bin := t.TempDir()
	for path, text := range map[string]string{
		h.Dir + "/oci-hook": "#!/bin/sh\necho seccompgen oci-hook v1.2.3", h.Dir + "/seccompgen-runc": "", h.Dir + "/nri-plugin": "",
		bin + "/containerd": "#!/bin/sh\necho containerd github.com/containerd/containerd " + containerd,
		bin + "/ctr":        `#!/bin/sh` + "\n" + `echo '{"ociVersion": "1.0.2-dev", "process": {"cwd": "/"}}'`,
		bin + "/podman":     "#!/bin/sh\necho podman version 4.3.1",
		bin + "/dockerd":    "#!/bin/sh\necho Docker version 20.10.24+dfsg1, build 5d6db84",
	} {
		put(t, path, text)
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":/bin:/usr/bin")
	return h
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tree returns all files beneath a directory.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := read(path)
		files[strings.TrimPrefix(path, root)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func do(t *testing.T, plan func(string) (*Plan, error), name string) *Plan {
	t.Helper()
	p, err := plan(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(); err != nil {
		t.Fatal(err)
	}
	return p
}

// Whatever was there before comes back, to the byte; a second install changes nothing; a dry run neither.
func TestInstallAndBack(t *testing.T) {
	for name, c := range map[string]struct {
		engine, containerd string
		before             map[string]string
		want               map[string][]string // parts of the files
	}{
		"podman": {engine: "podman", want: map[string][]string{
			podmanHooks + "/seccompgen-record.json": {`/oci-hook"`, `dev\\.seccompgen`}, podmanHooks + "/seccompgen-trace.json": {"--trace-annotation"},
		}},
		"podman, where nobody set hooks_dir": {
			engine: "podman", before: map[string]string{"/etc/containers/containers.conf": "[engine]\nruntime = \"runc\"\n"}, want: map[string][]string{
				podmanDropIn: {dropInHead + "[engine]\nhooks_dir = ['" + vendorHooks + "', '" + podmanHooks + "']\n"}, podmanHooks + "/seccompgen-trace.json": {"--trace-annotation"},
			},
		},
		"podman, where its administrator has a directory": {
			engine: "podman", before: map[string]string{"/etc/containers/containers.conf.d/50.conf": "[engine]\nhooks_dir = [\"/srv/a\", \"/srv/hooks/\", \"" + vendorHooks + "\"]\n"},
			want: map[string][]string{"/srv/hooks/seccompgen-record.json": {`/oci-hook"`}, podmanDropIn: nil, podmanHooks + "/seccompgen-record.json": nil},
		},
		"podman, where a list was added to": {
			engine: "podman", before: map[string]string{"/usr/share/containers/containers.conf": "[engine]\nhooks_dir = [\"/srv/a\", {append=true}]\n", "/etc/containers/containers.conf": "[engine]\nhooks_dir = [\"/srv/b\"]\n"},
			want: map[string][]string{"/srv/b/seccompgen-record.json": {`/oci-hook"`}, podmanDropIn: nil},
		},
		"podman beside CRI-O, which reads /etc": {
			engine: "podman", before: map[string]string{"/etc/crio/crio.conf.d/10": "[crio.runtime]\nhooks_dir = [\"" + podmanHooks + "\"]\n"},
			want: map[string][]string{podmanHooks + "/seccompgen-trace.json": {"--trace-annotation"}, podmanDropIn: {podmanHooks}},
		},
		"crio with a directory": {
			engine: "crio", before: map[string]string{"/etc/crio/crio.conf": "[crio.runtime]\nhooks_dir = [\"/srv/a\"]\n", "/etc/crio/crio.conf.d/10": "[crio.runtime]\nhooks_dir = [\"/srv/b\", \"" + vendorHooks + "\"]\n"},
			want: map[string][]string{"/srv/b/seccompgen-trace.json": {`"oci-hook"` + "\n"}, vendorHooks + "/seccompgen-trace.json": nil},
		},
		"crio beside podman": {engine: "crio", before: map[string]string{podmanHooks + "/other.json": "{}"}, want: map[string][]string{
			vendorHooks + "/seccompgen-record.json": {`/oci-hook"`}, vendorHooks + "/seccompgen-trace.json": {"trace-syscall"},
		}},
		"docker without a file": {engine: "docker", want: map[string][]string{dockerFile: {`"runtimes": {`, `/seccompgen-runc"`}}},
		"docker with settings": {
			engine: "docker",
			before: map[string]string{dockerFile: "{\n  \"log-driver\": \"journald\",\n  \"mtu\": 1.50e3,\n  \"a\": 12345678901234567890\n}\n"},
			want:   map[string][]string{dockerFile: {"\"log-driver\": \"journald\",\n  \"mtu\": 1.50e3,\n  \"a\": 12345678901234567890,\n  \"runtimes\": {\n    \"seccompgen\": {"}},
		},
		"docker with a runtime, in a line": {
			engine: "docker", before: map[string]string{dockerFile: `{"runtimes":{"crun":{"path":"/usr/bin/crun"}}, "debug" :true}`},
			want: map[string][]string{dockerFile: {`"crun":{"path":"/usr/bin/crun"}`, `"debug" :true}`, "seccompgen-runc"}},
		},
		"containerd 1.6": {
			engine: "containerd", containerd: "1.6.20~ds1", before: map[string]string{containerdFile: debianConfig},
			want: map[string][]string{containerdFile: {debianConfig + blockBegin, ".containerd.runtimes.seccompgen]", ".containerd.runtimes.runc]"}, baseSpecFile: {`/oci-hook"`, `"cwd": "/"`, "poststop"}},
		},
		"containerd 1.6 with a runtime of its own": {
			engine: "containerd", containerd: "1.6.20", before: map[string]string{containerdFile: debianConfig + ownRuntime},
			want: map[string][]string{containerdFile: {debianConfig + ownRuntime + blockBegin + "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.seccompgen]"}, baseSpecFile: {"poststop"}},
		},
		"containerd 1.6 with options": {
			engine: "containerd", containerd: "1.6.20", before: map[string]string{containerdFile: debianConfig + systemdCgroup},
			want: map[string][]string{containerdFile: {".containerd.runtimes.seccompgen.options]\nBinaryName = '/usr/sbin/runc'\nSystemdCgroup = true\n" + blockEnd}, baseSpecFile: {"poststop"}},
		},
		"containerd 1.6, no newline at the end": {
			engine: "containerd", containerd: "v1.7.0", before: map[string]string{containerdFile: "version = 2 # mine"},
			want: map[string][]string{containerdFile: {"version = 2 # mine\n"}, baseSpecFile: {"poststop"}},
		},
		"containerd 1.6 without a file": {engine: "containerd", containerd: "1.6.20", want: map[string][]string{containerdFile: {"version = 2\n" + blockBegin}, baseSpecFile: {"poststop"}}},
		"containerd 2":                  {engine: "containerd", containerd: "v2.4.2", before: map[string]string{containerdFile: "version = 3"}, want: map[string][]string{nriDir + "/" + pluginName: {"/nri-plugin"}}},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, c.containerd)
			for path, text := range c.before {
				put(t, h.Root+path, text)
			}
			before := tree(t, h.Root)
			p, err := h.Install(c.engine)
			if err != nil {
				t.Fatal(err)
			}
			text := string(p.Diff())
			if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" || !strings.Contains(text, "+++ b"+h.Root) {
				t.Errorf("a dry run changed files, or says nothing: %s\n%s", diff, text)
			}
			if err := p.Apply(); err != nil {
				t.Fatal(err)
			}
			installed := tree(t, h.Root)
			for path, parts := range c.want {
				if _, there := installed[path]; parts == nil && there {
					t.Errorf("%s is there", path)
				}
				for _, part := range parts {
					if !strings.Contains(installed[path], part) {
						t.Errorf("%s has no %q:\n%s", path, part, installed[path])
					}
				}
			}
			for path, text := range before {
				if _, changed := c.want[path]; changed {
					path += backupSuffix
				}
				if installed[path] != text {
					t.Errorf("%s is %q", path, installed[path])
				}
			}
			if again := do(t, h.Install, c.engine); len(again.Changes) > 0 || again.After != "" {
				t.Errorf("a second install changes %s", again.Diff())
			}
			var s Status
			for _, s = range h.Status() {
				if s.Engine == c.engine {
					break
				}
			}
			if len(s.Registered) == 0 || len(s.Programs) != 1 || filepath.Dir(s.Programs[0]) != h.Dir || s.Hook != "v1.2.3" || len(s.Problems) > 0 {
				t.Errorf("status is %+v", s)
			}
			do(t, h.Uninstall, c.engine)
			after := tree(t, h.Root)
			if c.before[containerdFile] == "version = 2 # mine" {
				before[containerdFile] += "\n" // the one that was missing
				before[containerdFile+backupSuffix] = "version = 2 # mine"
			}
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("uninstall leaves %s", diff)
			}
			for _, dir := range madeDirs {
				if files, err := os.ReadDir(h.Root + dir); err == nil && len(files) == 0 {
					t.Errorf("uninstall leaves %s", dir)
				}
			}
			if again := do(t, h.Uninstall, c.engine); len(again.Changes) > 0 {
				t.Errorf("a second uninstall changes %s", again.Diff())
			}
		})
	}
}

const debianConfig = `version = 2
# a comment
[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni" # another
`

const ownRuntime = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.kata]\n"

const systemdCgroup = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = true\nBinaryName = \"/usr/sbin/runc\"\n"

// What is not understood is left alone, and the error says what to add.
func TestInstallRefuses(t *testing.T) {
	for name, c := range map[string]struct{ engine, path, text, want string }{
		"no JSON":            {"docker", dockerFile, `{"a":`, `by hand: "runtimes"`},
		"comments":           {"docker", dockerFile, "{} // mine", `by hand: "runtimes"`},
		"no object":          {"docker", dockerFile, `[]`, `by hand: "runtimes"`},
		"runtimes":           {"docker", dockerFile, `{"runtimes":[]}`, "no object"},
		"our name":           {"docker", dockerFile, `{"runtimes":{"seccompgen":{"path":"/usr/bin/other"}}}`, "not ours"},
		"no TOML":            {"containerd", containerdFile, "version = ", "by hand:\n" + blockBegin},
		"version 1":          {"containerd", containerdFile, "root = \"/r\"\n", "version"},
		"version 3":          {"containerd", containerdFile, "version = 3\n", "version 3"},
		"a runtime":          {"containerd", containerdFile, "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.seccompgen]\nx = 1\n", "not ours"},
		"an inline table":    {"containerd", containerdFile, "version = 2\nplugins = {}\n", "cannot be added to"},
		"a broken block":     {"containerd", containerdFile, "version = 2\n" + blockBegin, "broken block"},
		"a foreign spec":     {"containerd", baseSpecFile, `{}`, "not ours"},
		"a foreign hook":     {"podman", podmanHooks + "/seccompgen-record.json", `{"hook":{"path":"/usr/bin/x"}}`, "not ours"},
		"a later hooks_dir":  {"podman", "/etc/containers/containers.conf.d/99.conf", "[engine]\nhooks_dir = [\"" + vendorHooks + "\"]\n", "99.conf sets the hooks_dir of Podman after all drop-in files: add \"/etc/containers/oci/hooks.d\""},
		"no TOML for podman": {"podman", "/etc/containers/containers.conf", "[engine", "decode"},
		"our drop-in's name": {"podman", podmanDropIn, "[engine]\n", "not ours"},
		"no hooks_dir":       {"crio", "/etc/crio/crio.conf", "[crio.runtime]\nhooks_dir = []\n", "empty hooks_dir"},
		"an unknown engine":  {"lxc", "/x", "", "no engine"},
		"no JSON, hook file": {"crio", vendorHooks + "/seccompgen-trace.json", `hello`, "not ours"},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, "1.6.20")
			if c.engine == "lxc" {
				programs["lxc"] = []string{"oci-hook"}
				defer delete(programs, "lxc")
			}
			put(t, h.Root+c.path, c.text)
			if p, err := h.Install(c.engine); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q, got %v, %+v", c.want, err, p)
			}
			if got := tree(t, h.Root); len(got) != 1 || got[c.path] != c.text {
				t.Errorf("got %q", got)
			}
		})
	}
}

// Podman and CRI-O read one directory: whoever is registered first, Podman's file stays, for its annotation's sake.
func TestSharedDirectory(t *testing.T) {
	for _, order := range [][]string{{"podman", "crio"}, {"crio", "podman"}} {
		h := host(t, "1.6.20")
		put(t, h.Root+"/etc/crio/crio.conf", "[crio.runtime]\nhooks_dir = [\""+podmanHooks+"\"]\n")
		before := tree(t, h.Root)
		for _, name := range append(order, "crio", "podman") {
			do(t, h.Install, name)
		}
		if got := tree(t, h.Root)[podmanHooks+"/seccompgen-trace.json"]; !strings.Contains(got, "--trace-annotation") {
			t.Errorf("%q: %s", order, got)
		}
		if p := do(t, h.Uninstall, "podman"); !strings.Contains(p.After, "seccompgen install crio") {
			t.Errorf("uninstall says %q", p.After)
		}
		do(t, h.Uninstall, "crio")
		if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
			t.Errorf("uninstall leaves %s", diff)
		}
	}
}

// What an earlier version put where Podman does not look is told, and moved.
func TestStatusUnread(t *testing.T) {
	h := host(t, "1.6.20")
	do(t, h.Install, "podman")
	if err := os.Remove(h.Root + podmanDropIn); err != nil {
		t.Fatal(err)
	}
	if s := h.status("podman"); len(s.Registered) > 0 || !strings.Contains(strings.Join(s.Problems, "\n"), "seccompgen-record.json is not read: Podman reads "+vendorHooks+"; seccompgen install podman mends it") {
		t.Errorf("got %+v", s)
	}
	do(t, h.Install, "podman")
	if s := h.status("podman"); len(s.Registered) != 2 || len(s.Problems) > 0 {
		t.Errorf("got %+v", s)
	}
}

// Engines run the hook as root: nobody else may be able to change it, or a directory above.
func TestInstallRefusesUnsafePrograms(t *testing.T) {
	h := host(t, "1.6.20")
	hook := filepath.Join(h.Dir, "oci-hook")
	for name, spoil := range map[string]func() error{
		"another's":            func() error { return os.Chown(hook, 1000, 1000) },
		"writable":             func() error { return os.Chmod(hook, 0o775) },
		"a writable directory": func() error { return os.Chmod(h.Dir, 0o777) },
		"missing":              func() error { return os.Remove(hook) },
	} {
		put(t, hook, "")
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		for _, engine := range Names { // seccompgen-runc and the NRI plugin run the hook too
			if p, err := h.Install(engine); err == nil || !strings.Contains(err.Error(), "make install") {
				t.Errorf("%s, %s: got %v, %v", engine, name, p, err)
			}
		}
		if err := os.RemoveAll(hook); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(h.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// A file that changed between the plan and the act is left alone.
func TestApplyLooksAgain(t *testing.T) {
	h := host(t, "1.6.20")
	put(t, h.Root+dockerFile, `{}`)
	p, err := h.Install("docker")
	if err != nil {
		t.Fatal(err)
	}
	put(t, h.Root+dockerFile, `{"debug":true}`)
	if err := p.Apply(); err == nil || !strings.Contains(err.Error(), "meanwhile") {
		t.Errorf("got %v", err)
	}
	if got := tree(t, h.Root); len(got) != 1 || got[dockerFile] != `{"debug":true}` {
		t.Errorf("got %q", got)
	}
}

// Status finds what is wrong with what is registered.
func TestStatusProblems(t *testing.T) {
	h := host(t, "1.6.20")
	for _, name := range []string{"podman", "docker", "containerd"} {
		do(t, h.Install, name)
	}
	put(t, h.Root+podmanHooks+"/oci-seccomp-bpf-hook.json", "{}")
	put(t, h.Root+containerdFile, "disabled_plugins = [\"cri\"]\n"+tree(t, h.Root)[containerdFile])
	for _, err := range []error{
		os.Remove(h.Dir + "/seccompgen-runc"), os.Chmod(h.Root+podmanHooks+"/seccompgen-record.json", 0o666), os.Chown(h.Root+baseSpecFile, 1000, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	problems := map[string]string{}
	for _, s := range h.Status() {
		problems[s.Engine] = strings.Join(s.Problems, "\n")
		if s.Engine != "crio" && s.Version == "" {
			t.Errorf("%s has no version", s.Engine)
		}
	}
	for engine, want := range map[string][]string{
		"podman": {"mode 0666", "is there too"}, "docker": {"seccompgen-runc: no such file"}, "containerd": {"disables the CRI", "belongs to user 1000"}, "crio": {""},
	} {
		if slices.ContainsFunc(want, func(part string) bool { return !strings.Contains(problems[engine], part) }) {
			t.Errorf("%s: want %q, got %q", engine, want, problems[engine])
		}
	}
}

package programs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/reexec"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(m.Run())
}

// noted is what the recorder notes of a program whose file is there.
func noted(t *testing.T, in, path string) profile.Program {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(in, path), &st); err != nil {
		t.Fatal(err)
	}
	return profile.Program{Path: path, Size: st.Size, Unread: "nobody has looked at it", File: &profile.File{Device: st.Dev, Inode: st.Ino, Began: time.Now().UnixNano()}}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
		t.Fatal(err)
	}
}

func look(pl *Place, known []string, all ...profile.Program) []profile.Program {
	pl.Look(all, known).Fill(all)
	return all
}

// goProgram builds one, and tells its path.
func goProgram(t *testing.T, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "main.go"), "package main\nimport \"os\"\nfunc main() { os.Mkdir(os.Args[1], 0) }\n")
	cmd := exec.Command("go", slices.Concat([]string{"build"}, flags, []string{"-o", "program", "main.go"})...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return filepath.Join(dir, "program")
}

func TestLook(t *testing.T) {
	root, volume := t.TempDir(), t.TempDir()
	program := goProgram(t)
	for from, to := range map[string]string{
		program: root + "/bin/go", "/bin/true": root + "/bin/c", goProgram(t, "-ldflags=-s -w"): volume + "/deep/stripped",
	} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(t, to, string(data))
	}
	place := PlaceOf("/nowhere", &specs.Spec{Root: &specs.Root{Path: root}, Mounts: []specs.Mount{{Destination: "/vol", Source: volume, Options: []string{"rbind"}}}}, nil)
	bound := noted(t, volume, "/deep/stripped")
	bound.Path = "/vol/deep/stripped"
	got := look(place, nil, noted(t, root, "/bin/go"), noted(t, root, "/bin/c"), bound)
	for i, want := range []struct {
		golang bool
		id     string
	}{{true, "/"}, {false, ""}, {true, "/"}} {
		p := got[i]
		if p.Unread != "" || p.File != nil || len(p.SHA256) != 64 || (p.Go != "") != want.golang || (p.Static != nil) != want.golang || !strings.Contains(p.BuildID, want.id) {
			t.Errorf("got %+v", p)
		}
		if want.golang && !slices.ContainsFunc(p.Static.Reachable, func(c profile.StaticCall) bool { return c.Name == "mkdirat" }) {
			t.Errorf("%s: the analysis lacks mkdirat", p.Path)
		}
	}
	again := look(place, []string{got[0].SHA256}, noted(t, root, "/bin/go"))[0]
	if again.SHA256 != got[0].SHA256 || again.Go == "" || again.Static != nil || again.Unread != "" {
		t.Errorf("one that is known: got %+v", again)
	}
}

// Whatever has a program's place is refused without being opened, and said of it.
func TestLookHostile(t *testing.T) {
	needRoot(t)
	outside := t.TempDir()
	write(t, outside+"/secret", strings.Repeat("s", 100))
	truncated, err := os.ReadFile(goProgram(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		make func(root string) error
		ran  func(*profile.Program)
		want string
	}{
		"link out":       {func(root string) error { return os.Symlink(outside+"/secret", root+"/p") }, nil, "not there any more: too many levels of symbolic links"},
		"relative link":  {func(root string) error { return os.Symlink("other", root+"/p") }, nil, "too many levels"},
		"directory link": {func(root string) error { return os.Symlink(outside, root+"/d") }, func(p *profile.Program) { p.Path = "/d/secret" }, "too many levels"},
		"dots":           {func(string) error { return nil }, func(p *profile.Program) { p.Path = "/../secret" }, "not there any more"},
		"FIFO":           {func(root string) error { return unix.Mkfifo(root+"/p", 0o755) }, nil, "not a regular file"},
		"directory":      {func(root string) error { return os.Mkdir(root+"/p", 0o755) }, nil, "not a regular file"},
		"device":         {func(root string) error { return unix.Mknod(root+"/p", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) }, nil, "not a regular file"},
		"nothing":        {func(string) error { return nil }, func(p *profile.Program) { p.Path = "/gone" }, "not there any more: no such file"},
		"huge": {func(root string) error {
			return errors.Join(os.WriteFile(root+"/p", nil, 0o755), os.Truncate(root+"/p", 1<<40))
		}, nil, "are not read"},
		"another":          {func(root string) error { return os.WriteFile(root+"/p", nil, 0o755) }, func(p *profile.Program) { p.File.Inode++ }, "another file has its place"},
		"another size":     {func(root string) error { return os.WriteFile(root+"/p", nil, 0o755) }, func(p *profile.Program) { p.Size++ }, "another file has its place"},
		"changed":          {func(root string) error { return os.WriteFile(root+"/p", nil, 0o755) }, func(p *profile.Program) { p.File.Began -= int64(time.Hour) }, "changed after it began"},
		"a file of proc's": {func(root string) error { return os.Mkdir(root+"/proc", 0o755) }, func(p *profile.Program) { p.Path, p.Size, p.File.Inode = "/proc/1/environ", 0, 0 }, "gone with the container"},
		"no ELF":           {func(root string) error { return os.WriteFile(root+"/p", []byte("MZ"), 0o755) }, nil, "what it is cannot be told"},
		"truncated":        {func(root string) error { return os.WriteFile(root+"/p", truncated[:len(truncated)/2], 0o755) }, nil, "what it is cannot be told"},
		"packed": {func(root string) error {
			packed := bytes.Clone(truncated)
			for _, at := range []int{0x28, 0x29, 0x2a, 0x2b, 0x3c, 0x3d, 0x3e, 0x3f} { // e_shoff, e_shnum, e_shstrndx
				packed[at] = 0
			}
			return os.WriteFile(root+"/p", bytes.ReplaceAll(packed, []byte("\xff Go buildinf:"), []byte("\xff No buildinf:")), 0o755)
		}, nil, "as if it were packed"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := c.make(root); errors.Is(err, unix.EPERM) {
				t.Skipf("SKIPPED: this machine lets nobody make that: %v", err)
			} else if err != nil {
				t.Fatal(err)
			}
			p := profile.Program{Path: "/p", File: &profile.File{Began: time.Now().UnixNano()}}
			if _, err := os.Lstat(root + "/p"); err == nil {
				p = noted(t, root, "/p")
			}
			if c.ran != nil {
				c.ran(&p)
			}
			place := PlaceOf(root, &specs.Spec{Root: &specs.Root{Path: "."}, Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}}}, nil)
			began := time.Now()
			got := look(place, nil, p)[0]
			if !strings.Contains(got.Unread, c.want) || got.File != nil || got.Go != "" || got.Static != nil {
				t.Errorf("got %+v, want %q", got, c.want)
			}
			if took := time.Since(began); took > maxTime/2 {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: files of strangers are read by another user, which takes root to become")
	}
}

// More programs than are read, and no configuration, are said of each.
func TestLookLimits(t *testing.T) {
	root := t.TempDir()
	var all []profile.Program
	for i := range maxPrograms + 2 {
		name := fmt.Sprintf("/p%d", i)
		write(t, root+name, "x")
		all = append(all, noted(t, root, name))
	}
	got := look(&Place{root: root}, nil, slices.Clone(all)...)
	over := slices.DeleteFunc(got, func(p profile.Program) bool { return !strings.Contains(p.Unread, "no more are read") })
	if len(over) != 2 || over[0].Path != "/p64" {
		t.Errorf("got %+v, want the last two unread", over)
	}
	if got := look(PlaceOf("", nil, errors.New("no config.json")), nil, all[0]); got[0].Unread != "no config.json" || got[0].File != nil {
		t.Errorf("got %+v", got)
	}
}

// What a child answers may be what a file made of it.
func TestDecode(t *testing.T) {
	const goProgram = `{"path":"","sha256":"5f","go":"go1.26.8"}` + "\n"
	late, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx          context.Context
		answer, want string
	}{
		"nothing":         {t.Context(), "", "it could not be read: signal: killed"},
		"garbage":         {t.Context(), "\x00\x01", "it could not be read"},
		"a file":          {t.Context(), `{"path":"","sha256":"5f","file":{"device":1,"inode":2,"began":3}}` + "\n", "nonsense"},
		"no hash":         {t.Context(), `{"path":"","go":"go1.26.8"}` + "\n", "nonsense"},
		"unknown key":     {t.Context(), `{"path":"","sha256":"5f","gone":1}` + "\n", "unknown field"},
		"killed":          {t.Context(), goProgram, "could not be analyzed: signal: killed"},
		"half":            {t.Context(), goProgram + `{"static":{"goRuntime`, "could not be analyzed: signal: killed"},
		"too slow":        {late, goProgram, "could not be analyzed: there was no time left"},
		"a reason":        {t.Context(), goProgram + `{"unread":"386"}` + "\n", "386"},
		"unknown call":    {t.Context(), goProgram + `{"static":{"goRuntime":[{"abi":"SCMP_ARCH_X86_64","nr":9999,"text":"why","functions":[]}]}}` + "\n", "no name here"},
		"without reason":  {t.Context(), goProgram + `{"static":{"goRuntime":[{"abi":"SCMP_ARCH_X86_64","nr":1,"functions":[]}]}}` + "\n", "no reason"},
		"all of it":       {t.Context(), goProgram + `{"static":{"goRuntime":[],"reachable":[],"unresolved":[]}}` + "\n", ""},
		"no Go, no words": {t.Context(), `{"path":"","sha256":"5f"}` + "\n", ""},
	} {
		p, err := decode(c.ctx, []byte(c.answer), errors.New("signal: killed"), nil)
		got := p.Unread
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) || c.want == "" && got != "" || c.want != "" && p.Static != nil {
			t.Errorf("%s: got %+v, %v, want %q", name, p, err, c.want)
		}
	}
}

// The child is another user who may not do anything, and gives up.
func TestChildLimits(t *testing.T) {
	needRoot(t)
	f, err := os.Open(goProgram(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := reexec.Command(Child + "-limits")
	cmd.Env = []string{}
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "memory: cannot allocate memory\nfiles: too many open files\nwrite: file too large\n" {
		t.Errorf("the limits are %q, %v", out, err)
	}
}

func init() {
	reexec.Register(Child+"-limits", func() {
		if err := limitSelf(os.NewFile(3, "program")); err != nil {
			fmt.Println(err)
		}
		_, err := unix.Mmap(-1, 0, childMemory+1<<29, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		fmt.Println("memory:", err)
		err = nil
		for err == nil {
			_, err = unix.Open("/", unix.O_RDONLY, 0)
		}
		fmt.Println("files:", err)
		fd, _ := unix.MemfdCreate("", 0)
		if fd < 0 {
			_ = unix.Close(8)
			fd, err = unix.MemfdCreate("", 0)
		}
		if err == nil || fd >= 0 {
			_, err = unix.Pwrite(fd, []byte("x"), 0)
		}
		fmt.Println("write:", err)
	})
}

//go:build amd64

package tracer

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/profile"
)

// executeNameless becomes a program that has no name: in memory, or removed.
func executeNameless(how string) error {
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		return err
	}
	var fd int
	if how == "memfd" {
		fd, err = unix.MemfdCreate("nameless", 0)
	} else {
		if err := os.WriteFile("deleted", program, 0o700); err != nil {
			return err
		}
		if fd, err = unix.Open("deleted", unix.O_RDONLY, 0); err == nil {
			err = os.Remove("deleted")
		}
	}
	if err != nil {
		return err
	}
	if how == "memfd" {
		if _, err := unix.Write(fd, program); err != nil {
			return err
		}
	}
	return unix.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), []string{"nameless"}, os.Environ())
}

// TestPrograms notes what ran, however it was executed, and by which path the container's root has it.
func TestPrograms(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	long := filepath.Join(strings.Repeat("/"+strings.Repeat("n", 200), 6))
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!"+dir+"/sh\n"+dir+"/script-ran\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "chain", "relative", "script-ran", "bound/src", "chrooted/in"} {
		from := "/bin/true"
		if name == "sh" {
			from = "/bin/sh"
		}
		copyProgram(t, from, filepath.Join(dir, name))
	}
	for _, d := range []string{"mnt", long} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		want []string // beside dir/sh
	}{
		"chain":      {dir + "/sh -c 'exec " + dir + "/chain'", []string{dir + "/chain"}},
		"relative":   {"cd " + dir + "/mnt && ../relative", []string{dir + "/relative"}},
		"script":     {script, []string{dir + "/script-ran"}},
		"bind mount": {"mount --bind " + dir + "/bound " + dir + "/mnt && " + dir + "/mnt/src", []string{"/bin/mount", dir + "/mnt/src"}},
		"twice":      {dir + "/chain; " + dir + "/chain", []string{dir + "/chain"}},
		"memfd":      {roleEnv + "=memfd " + self, []string{self, "/memfd:nameless: it had no name any more when it was executed"}},
		"deleted":    {"cd " + dir + " && " + roleEnv + "=deleted " + self, []string{self, dir + "/deleted: it had no name any more when it was executed"}},
		"too long":   {"cd " + dir + long + " && cp " + dir + "/chain . && ./chain", []string{"/bin/cp", "chain: its place in the container is not known"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := programsOf(t, dir+"/sh", c.text)
			var want []string
			for _, w := range append(c.want, dir+"/sh") {
				if resolved, err := filepath.EvalSymlinks(w); err == nil {
					w = resolved
				}
				want = append(want, w)
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("programs (-want +got):\n%s", diff)
			}
		})
	}
}

func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// programsOf records what a shell executes, and checks that what is noted of each file is that file.
func programsOf(t *testing.T, sh, text string) []string {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "read line; exec "+sh+` -c "$line"`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("%s-%d", filepath.Base(t.Name()), cmd.Process.Pid)
	if err := Start(id, cmd.Process.Pid, Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, text+"; exit $?\n"); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	var all []string
	err = Collect(id, func(r *profile.Recording) error {
		for _, p := range r.Programs {
			if p.File == nil {
				all = append(all, p.Path+": "+p.Unread)
				continue
			}
			all = append(all, p.Path)
			var st unix.Stat_t
			if unix.Stat(p.Path, &st) == nil && (st.Ino != p.File.Inode || st.Size != p.Size || st.Ctim.Nano() > p.File.Began) {
				t.Errorf("%s is inode %d of %d bytes, changed at %d; noted is %+v, %d bytes", p.Path, st.Ino, st.Size, st.Ctim.Nano(), *p.File, p.Size)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

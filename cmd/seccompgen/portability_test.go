package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
)

// anything uses what makes system calls in Go's standard library.
const anything = `package main

import (
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"syscall"
	"time"
)

func main() {
	signal.Ignore(syscall.SIGHUP)
	net.Listen("tcp", "localhost:0")
	net.Interfaces()
	exec.Command("true").Run()
	user.Current()
	os.RemoveAll("x")
	os.Chown("x", 1, 1)
	os.Lchown("x", 1, 1)
	os.Chtimes("x", time.Now(), time.Now())
	f, _ := os.Create("x")
	g, _ := os.Open("y")
	f.ReadFrom(g)
	f.Truncate(1)
	f.Chown(1, 1)
	f.Stat()
	f.Seek(1, 1)
	f.Readdir(1)
	syscall.Statfs("x", new(syscall.Statfs_t))
	syscall.Fstatfs(0, new(syscall.Statfs_t))
	syscall.Setuid(1)
	syscall.Getgroups()
	syscall.Select(0, nil, nil, nil, nil)
	syscall.EpollWait(0, nil, 0)
	syscall.Mmap(0, 0, 1, 1, 1)
	syscall.Getrlimit(0, new(syscall.Rlimit))
	syscall.InotifyInit()
	syscall.Utime("x", nil)
	syscall.Pause()
}
`

// sockets are the calls that Go makes through socketcall on 386.
var sockets = map[string]bool{
	"socket": true, "bind": true, "connect": true, "listen": true, "accept4": true, "getsockname": true, "getpeername": true, "socketpair": true,
	"sendto": true, "recvfrom": true, "setsockopt": true, "getsockopt": true, "sendmsg": true, "recvmsg": true,
}

// TestPortabilityAgainstMachineCode takes all that a program's amd64 code can call for seen, and compares what build says of
// other ABIs with what the code of the same program, made for these, can call.
func TestPortabilityAgainstMachineCode(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte(anything), 0o600); err != nil {
		t.Fatal(err)
	}
	statics := map[string]*profile.Static{}
	for _, goarch := range []string{"amd64", "386", "arm64"} {
		binary := filepath.Join(dir, goarch)
		c := exec.Command("go", "build", "-o", binary, source)
		c.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0", "GOARCH="+goarch)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
		p, err := analyze(binary)
		if err != nil || len(p.Static.Unresolved) > 0 {
			t.Fatalf("analyze: %v, %+v", err, p.Static)
		}
		statics[goarch] = p.Static
	}
	for from, recorded := range statics {
		r := &profile.Recording{
			Version: profile.RecordingVersion, ID: "all", Complete: true, Kernel: "6.18.0", Boundary: profile.BoundaryFilter, Runtime: profile.Runtime{Name: "crun"},
			Runs: []profile.Run{{ID: "1"}}, Programs: []profile.Program{{Path: "/all", Go: "go1.26.8", Static: recorded}},
		}
		abi := recorded.Reachable[0].ABI
		add := func(name string) {
			if nr, ok := profile.Number(abi, name); ok {
				r.Syscalls = append(r.Syscalls, profile.Syscall{Phase: profile.PhaseWorkload, ABI: abi, Nr: nr, Runs: []string{"1"}})
			}
		}
		for _, c := range recorded.Reachable {
			if c.Name == "socketcall" { // of which nobody can say what it does: the calls that it stands for
				for name := range sockets {
					add(name)
				}
				continue
			}
			add(c.Name)
		}
		for to, static := range statics {
			if from == to {
				continue
			}
			t.Run(from+" to "+to, func(t *testing.T) {
				other := static.Reachable[0].ABI
				_, why, err := profile.Build([]*profile.Recording{r}, profile.BuildOptions{Arch: []specs.Arch{other}})
				if err != nil {
					t.Fatal(err)
				}
				predicted := map[string]bool{}
				for _, e := range why.Entries {
					if e.ABI == other && e.Action == specs.ActAllow {
						predicted[e.Name] = true
					}
				}
				can := map[string]bool{}
				for _, c := range slices.Concat(static.Reachable, static.GoRuntime) {
					can[c.Name] = true
				}
				for name := range can {
					if from == "386" && name == "clone3" {
						continue // socketcall's calls are not in its code, so that it is not certain that Go made clone3
					}
					if !predicted[name] && name != "socketcall" { // libseccomp makes a rule for it from one for each of its calls
						t.Errorf("%s can call %s, which was not predicted", to, name)
					}
				}
				if from != "amd64" {
					return // arm64 and 386 do not show which of several calls amd64 would make
				}
				for name := range predicted {
					if !can[name] && !(can["socketcall"] && sockets[name]) {
						t.Errorf("%s was predicted, which %s cannot call", name, to)
					}
				}
			})
		}
	}
}

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
	"github.com/seccompgen/seccompgen/tracer"
)

// auditABIs are the architectures of audit records, include/uapi/linux/audit.h. x32 is x86-64's, with bit 30 set.
var auditABIs = map[string]specs.Arch{"c000003e": specs.ArchX86_64, "40000003": specs.ArchX86}

// flaky are the calls by which two runs of one Go program differ: facts.md, and docs of the policy "robust".
var flaky = []string{
	"sched_yield", "tgkill", "getpid", "rt_sigreturn", "epoll_pwait", "munmap", "exit", "nanosleep", "restart_syscall",
}

// An oracleBundle is a container whose program has an executable that no other process of the host has: by it the
// audit's records are told from the host's noise.
type oracleBundle struct {
	dir, exe string
	spec     specs.Spec
}

// newOracleBundle makes a bundle under SCMP_ACT_LOG whose root file system is a given one.
func newOracleBundle(t *testing.T, rootfs, program string, args []string, mounts ...specs.Mount) *oracleBundle {
	t.Helper()
	b := &oracleBundle{dir: t.TempDir(), exe: "/oracle-" + filepath.Base(t.TempDir()) + fmt.Sprint(os.Getpid())}
	if err := os.Rename(filepath.Join(rootfs, program), filepath.Join(rootfs, b.exe)); err != nil {
		t.Fatal(err)
	}
	b.spec = specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: rootfs},
		Process: &specs.Process{
			Args: append([]string{b.exe}, args...), Cwd: "/", Env: []string{"PATH=/bin", "HOME=/", "TMPDIR=/tmp"}, NoNewPrivileges: true,
		},
		Mounts: append([]specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
		}, mounts...),
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.NetworkNamespace}},
			Seccomp: &specs.LinuxSeccomp{
				DefaultAction: specs.ActLog, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
			},
		},
	}
	b.write(t, b.dir, nil)
	return b
}

// write writes config.json into a directory.
func (b *oracleBundle) write(t *testing.T, dir string, hooks *specs.Hooks) {
	t.Helper()
	spec := b.spec
	spec.Hooks = hooks
	data, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// holdBPFFS mounts bpffs for hooks that no session of ours runs: this world is not the host's.
func holdBPFFS(t *testing.T) {
	t.Helper()
	hold, err := tracer.Hold()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := hold.Close(); err != nil {
			t.Error(err)
		}
	})
}

// witness runs the bundle under SCMP_ACT_LOG, with the hook in it, as an engine does. It returns what the recorder and
// what the audit saw of that very run.
func (b *oracleBundle) witness(t *testing.T, runtime string) (*profile.Recording, map[profile.Phase][]string) {
	t.Helper()
	holdBPFFS(t)
	for range 5 {
		dir := t.TempDir()
		out := filepath.Join(dir, "recording.json")
		h := []specs.Hook{{Path: filepath.Join(binDir, "oci-hook"), Args: []string{"oci-hook", "--output", out}}}
		b.write(t, dir, &specs.Hooks{CreateRuntime: h, Poststop: h})

		listener, before := newAuditor(t), lost(t)
		cmd := exec.CommandContext(t.Context(), runtime, "--root", t.TempDir(), "run", "--bundle", dir, filepath.Base(b.exe))
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s run: %v\n%s", runtime, err, said)
		}
		records := listener.drain(t)
		if lost(t) == before {
			return lab.ReadRecording(t, out), b.split(t, records)
		}
	}
	t.Fatal("the kernel throws audit records away, perhaps others': no oracle")
	return nil, nil
}

// split picks the container's records and tells the phases apart as the kernel names executables: the runtime's until
// the execve, the program's from there on.
func (b *oracleBundle) split(t *testing.T, records []auditRecord) map[profile.Phase][]string {
	t.Helper()
	pids := map[int]bool{}
	for _, r := range records {
		if r.exe == b.exe {
			pids[r.pid] = true
		}
	}
	if len(pids) == 0 {
		t.Fatalf("none of %d audit records is of %s", len(records), b.exe)
	}
	sets := map[profile.Phase]map[string]bool{profile.PhaseRuntime: {}, profile.PhaseWorkload: {}}
	for _, r := range records {
		if !pids[r.pid] {
			continue
		}
		phase := profile.PhaseRuntime
		if r.exe == b.exe {
			phase = profile.PhaseWorkload
		}
		abi := auditABIs[r.arch]
		sets[phase][fmt.Sprintf("%s %d %s", abi, r.nr, profile.Name(abi, r.nr))] = true
	}
	all := map[profile.Phase][]string{}
	for phase, set := range sets {
		all[phase] = slices.Sorted(maps.Keys(set))
	}
	return all
}

// sameAsAudit compares, of one and the same run, all that the recorder saw with all that the audit saw.
func sameAsAudit(t *testing.T, r *profile.Recording, audit map[profile.Phase][]string) {
	t.Helper()
	if !r.Complete || r.Boundary != profile.BoundaryFilter {
		t.Errorf("recording is not complete or does not begin at the filter: %v, boundary %q", r.Incomplete(), r.Boundary)
	}
	for _, phase := range []profile.Phase{profile.PhaseRuntime, profile.PhaseWorkload} {
		if diff := cmp.Diff(audit[phase], calls(r, phase)); diff != "" {
			t.Errorf("phase %s: the audit (-) and the recorder (+) differ on the same run:\n%s", phase, diff)
		}
	}
	if t.Failed() {
		return
	}
	t.Logf("both saw %d calls of the runtime and %d of the workload", len(audit[profile.PhaseRuntime]), len(audit[profile.PhaseWorkload]))
}

// TestOracleStatic: a static program without libc makes calls that are known.
func TestOracleStatic(t *testing.T) {
	oracleStatic(t, "39,104,0,72,273")
}

// TestOracleCompat: the same of two ABIs at once.
func TestOracleCompat(t *testing.T) {
	lab.NeedCompat(t)
	oracleStatic(t, "39,i20,i199,104,0,72,273", "SCMP_ARCH_X86 199 getuid32", "SCMP_ARCH_X86 20 getpid")
}

func oracleStatic(t *testing.T, list string, more ...string) {
	needRoot(t)
	rootfs := t.TempDir()
	lab.Calls(t, filepath.Join(rootfs, "calls"))
	b := newOracleBundle(t, rootfs, "calls", []string{"run", "threads", list, "3"})
	want := append(more,
		"SCMP_ARCH_X86_64 0 read", "SCMP_ARCH_X86_64 104 getgid", "SCMP_ARCH_X86_64 231 exit_group", "SCMP_ARCH_X86_64 273 set_robust_list",
		"SCMP_ARCH_X86_64 39 getpid", "SCMP_ARCH_X86_64 56 clone", "SCMP_ARCH_X86_64 60 exit", "SCMP_ARCH_X86_64 72 fcntl",
	)
	for _, rt := range ociRuntimes {
		t.Run(rt.name, func(t *testing.T) {
			runtime := rt.find(t)
			for _, b.spec.Process.NoNewPrivileges = range []bool{true, false} {
				r, audit := b.witness(t, runtime)
				sameAsAudit(t, r, audit)
				if diff := cmp.Diff(want, calls(r, profile.PhaseWorkload)); diff != "" {
					t.Errorf("the program's calls (-) are not what was recorded (+):\n%s", diff)
				}
				b.write(t, b.dir, nil)
				b.sameAsRecord(t, runtime, audit, nil)
			}
		})
	}
}

// sameAsRecord compares what seccompgen record sees of the bundle in one run with the audit's set, but for some names.
func (b *oracleBundle) sameAsRecord(t *testing.T, runtime string, audit map[profile.Phase][]string, except []string, flags ...string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "recording.json")
	seccompgen(t, 0, append([]string{"record", "-o", out, "--runtime", runtime, "--bundle", b.dir}, flags...)...)
	r := lab.ReadRecording(t, out)
	if err := r.Incomplete(); err != nil {
		t.Error(err)
	}
	but := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(except, s[strings.LastIndexByte(s, ' ')+1:]) })
	}
	if diff := cmp.Diff(but(audit[profile.PhaseWorkload]), but(calls(r, profile.PhaseWorkload))); diff != "" {
		t.Errorf("the audit (-) and seccompgen record (+) differ:\n%s", diff)
	}
}

// TestOracleLs: a real program with a dynamic linker.
func TestOracleLs(t *testing.T) {
	needRoot(t)
	ls := lab.NeedTool(t, "ls")
	rootfs := t.TempDir()
	lab.CopyFile(t, ls, filepath.Join(rootfs, "ls"))
	var mounts []specs.Mount
	for _, dir := range []string{"/etc", "/lib", "/lib64", "/usr"} {
		mounts = append(mounts, specs.Mount{Destination: dir, Type: "bind", Source: dir, Options: []string{"rbind", "ro"}})
	}
	b := newOracleBundle(t, rootfs, "ls", []string{"-lR", "/etc/ssl"}, mounts...)
	r, audit := b.witness(t, lab.NeedTool(t, "runc"))
	sameAsAudit(t, r, audit)
	b.sameAsRecord(t, "runc", audit, nil)
}

// goOracle works with files, the network, children of its own and many threads.
const goOracle = `package tiny

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "child" {
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestFiles(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name, name+"y"); err != nil {
		t.Fatal(err)
	}
}

func TestNet(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		c, err := l.Accept()
		if err == nil {
			io.Copy(c, c)
			c.Close()
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Write([]byte("hello"))
	c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Fatal(got, err)
	}
}

func TestChild(t *testing.T) {
	if err := exec.Command("/proc/self/exe", "child").Run(); err != nil {
		t.Fatal(err)
	}
}

func TestThreads(t *testing.T) {
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			runtime.LockOSThread()
			for i := range 200 {
				_ = make([]byte, 1<<16+i)
				runtime.Gosched()
			}
		})
	}
	group.Wait()
	runtime.GC()
}
`

// TestOracleGo: a Go test binary makes other calls in every run. Of one run both witnesses must say the same; what five
// runs and five others show differs at most by the calls that are known to come and go.
func TestOracleGo(t *testing.T) {
	needRoot(t)
	runc := lab.NeedTool(t, "runc")
	rootfs := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", filepath.Join(rootfs, "tiny.test"), ".")
	build.Dir, build.Env = module(t, "tiny_test.go", goOracle), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b := newOracleBundle(t, rootfs, "tiny.test", []string{"-test.v"})
	heard := map[profile.Phase][]string{}
	for range 5 {
		r, audit := b.witness(t, runc)
		sameAsAudit(t, r, audit)
		for phase, list := range audit {
			heard[phase] = append(heard[phase], list...)
		}
	}
	for phase, list := range heard {
		slices.Sort(list)
		heard[phase] = slices.Compact(list)
	}
	b.sameAsRecord(t, runc, heard, flaky, "--runs", "5")
}

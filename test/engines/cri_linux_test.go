package engines

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
	"github.com/seccompgen/seccompgen/tracer"
)

// containerd is a containerd of the test's own, spoken to as the kubelet does.
type containerd struct {
	t       testing.TB
	dir     string
	bin     string // directory of containerd and ctr; "" for those of the system
	daemon  *exec.Cmd
	handler string
	cri.RuntimeServiceClient
	cri.ImageServiceClient
}

const config16 = `version = 2
root = "DIR/root"
state = "DIR/state"
[grpc]
  address = "DIR/sock"
# The kubelet's part:
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/lab:1"
  restrict_oom_score_adj = true # no CAP_SYS_RESOURCE here
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "DIR/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
[plugins."io.containerd.internal.v1.opt"]
  path = "DIR/opt"
`

// newContainerd makes one with an image lab, as `seccompgen install containerd` has set it up.
func newContainerd(t testing.TB, config, bin, rootfs string) *containerd {
	t.Helper()
	dir, err := os.MkdirTemp(worldDir, "c")
	if err != nil {
		t.Fatal(err)
	}
	c := &containerd{t: t, dir: dir, bin: bin, handler: "seccompgen"}
	// /etc is this world's own from here on.
	etc := filepath.Join(dir, "etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(etc, "config.toml"), []byte(strings.ReplaceAll(config, "DIR", dir)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(etc, "/etc/containerd", "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount over /etc/containerd: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount("/etc/containerd", 0); err != nil {
			t.Error(err)
		}
	})
	if bin != "" { // version 2 takes the plugin, and needs no handler
		c.handler = ""
	}
	if r := run(t, toolPath, "install", "containerd"); r.exit != 0 {
		t.Fatal(r)
	}
	t.Cleanup(func() {
		if c.daemon == nil {
			return
		}
		if pods, err := c.ListPodSandbox(context.Background(), &cri.ListPodSandboxRequest{}); err == nil {
			for _, pod := range pods.Items {
				c.removePod(pod.Id)
			}
		}
		c.stop()
		removeCgroups("default", "k8s.io")
		clearTree(t, dir)
	})
	c.start()
	c.ctr("image", "import", image(t, rootfs, "localhost/lab:1", "/bin/sleep", "1000000"))
	// The CRI hears of it by an event; before, it would pull the image.
	wait(t, "the image", func() bool {
		r, err := c.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: "localhost/lab:1"}})
		return err == nil && r.Image != nil
	})
	return c
}

func (c *containerd) start() {
	c.t.Helper()
	log, err := os.OpenFile(c.dir+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	c.daemon = exec.Command("containerd")
	if c.bin != "" {
		c.daemon = exec.Command(filepath.Join(c.bin, "containerd"))
		c.daemon.Env = append(os.Environ(), "PATH="+c.bin+":"+os.Getenv("PATH"))
	}
	c.daemon.Stdout, c.daemon.Stderr = log, log
	if err := c.daemon.Start(); err != nil {
		c.t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix://"+c.dir+"/sock", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if c.t.Failed() {
			said, _ := os.ReadFile(c.dir + "/log")
			c.t.Logf("containerd: %s", said[max(0, len(said)-3000):])
		}
	})
	c.RuntimeServiceClient, c.ImageServiceClient = cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)
	wait(c.t, "containerd", func() bool {
		_, err := c.Version(context.Background(), &cri.VersionRequest{})
		return err == nil
	})
}

func (c *containerd) stop() {
	_ = c.daemon.Process.Signal(syscall.SIGTERM)
	_ = c.daemon.Wait()
}

func (c *containerd) ctr(args ...string) result {
	c.t.Helper()
	r := run(c.t, filepath.Join(c.bin, "ctr"), slices.Concat([]string{"--address", c.dir + "/sock", "--namespace", "k8s.io"}, args)...)
	if r.exit != 0 {
		c.t.Fatal(r)
	}
	return r
}

// pod is a pod of the test's.
type pod struct {
	*containerd
	id     string
	config *cri.PodSandboxConfig
}

var node = &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}

func (c *containerd) pod(annotations map[string]string) *pod {
	c.t.Helper()
	name := fmt.Sprintf("pod%d", time.Now().UnixNano())
	p := &pod{c, "", &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name}, LogDirectory: filepath.Join(c.dir, "logs", name), Annotations: annotations,
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: node, Seccomp: &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}}},
	}}
	if err := os.MkdirAll(p.config.LogDirectory, 0o755); err != nil {
		c.t.Fatal(err)
	}
	r, err := c.RunPodSandbox(c.t.Context(), &cri.RunPodSandboxRequest{Config: p.config, RuntimeHandler: c.handler})
	if err != nil {
		c.t.Fatal(err)
	}
	p.id = r.PodSandboxId
	return p
}

func (c *containerd) removePod(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // also when the test has ended
	defer cancel()
	_, err := c.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id})
	if err == nil {
		_, err = c.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id})
	}
	if err != nil {
		c.t.Errorf("remove pod %s: %v", id, err)
	}
}

// start starts a container under the engine's default profile, or one on this host.
func (p *pod) start(name string, attempt uint32, localhost string, command ...string) (string, error) {
	p.t.Helper()
	seccomp := &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
	if localhost != "" {
		seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: localhost}
	}
	made, err := p.CreateContainer(p.t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.id, SandboxConfig: p.config, Config: &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name, Attempt: attempt}, Image: &cri.ImageSpec{Image: "localhost/lab:1"}, Command: command,
		LogPath: fmt.Sprintf("%s.%d.log", name, attempt),
		Linux:   &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: node, Seccomp: seccomp}},
	}})
	if err != nil {
		return "", err
	}
	_, err = p.StartContainer(p.t.Context(), &cri.StartContainerRequest{ContainerId: made.ContainerId})
	return made.ContainerId, err
}

// run runs a container to its end, and returns its exit code and what it printed.
func (p *pod) run(name string, attempt uint32, localhost string, command ...string) (int32, string) {
	p.t.Helper()
	id, err := p.start(name, attempt, localhost, command...)
	if err != nil {
		p.t.Fatal(err)
	}
	exit := p.wait(id)
	log, err := os.ReadFile(filepath.Join(p.config.LogDirectory, fmt.Sprintf("%s.%d.log", name, attempt)))
	if err != nil {
		p.t.Fatal(err)
	}
	var said strings.Builder
	for line := range strings.Lines(string(log)) {
		_, text, _ := strings.Cut(line, " F ") // time, stream, whether the line is full
		said.WriteString(text)
	}
	return exit, said.String()
}

func (p *pod) wait(id string) int32 {
	p.t.Helper()
	var status *cri.ContainerStatus
	wait(p.t, "the container's end", func() bool {
		r, err := p.ContainerStatus(p.t.Context(), &cri.ContainerStatusRequest{ContainerId: id})
		if err != nil {
			p.t.Fatal(err)
		}
		status = r.Status
		return status.State == cri.ContainerState_CONTAINER_EXITED
	})
	return status.ExitCode
}

// As the kubelet does it: a pod is recorded, each container for itself and not the pod's own, profiles are built and used
// as localhost/ ones.
func TestCRI(t *testing.T) {
	lab.NeedTool(t, "containerd")
	rootfs := rootFS(t)
	goTest(t, "strings", filepath.Join(rootfs, "bin/tests"))
	c := newContainerd(t, config16, "", rootfs)
	clearRecordings(t)
	testPods(t, c)

	// The engine is killed: the shims live, and nobody calls poststop until it is back.
	clearRecordings(t)
	p := c.pod(map[string]string{record: "killed"})
	id, err := p.start("web", 0, "", "/bin/sh", "-c", "trap 'sync; exit 0' TERM; while :; do sleep 0.1; done")
	if err != nil {
		t.Fatal(err)
	}
	list, err := tracer.List()
	if err != nil || len(list) != 1 || list[0].ID != id {
		t.Fatalf("under way: %+v, %v", list, err)
	}
	_ = c.daemon.Process.Kill()
	_ = c.daemon.Wait()
	_ = syscall.Kill(list[0].Pid, syscall.SIGTERM)
	wait(t, "the recording's end", func() bool {
		list, err := tracer.List()
		return err == nil && len(list) == 1 && list[0].State == tracer.Ended
	})
	c.start()
	if r := lab.ReadRecording(t, recordings(t, "killed-web-", 1)[0]); !r.Complete || !slices.Contains(names(r, profile.PhaseWorkload), "sync") {
		t.Errorf("got %v, %q", r.Dropped, names(r, profile.PhaseWorkload))
	}
}

// testPods is what any containerd must do.
func testPods(t *testing.T, c *containerd) {
	t.Helper()
	p := c.pod(nil)
	if exit, said := p.run("web", 0, "", "/bin/ls", "/"); exit != 0 {
		t.Errorf("exit %d: %s", exit, said)
	}
	noRecordings(t)

	// Two containers with other programs, one of them restarted.
	p = c.pod(map[string]string{record: "shop", record + "/db": "base", record + "/quiet": "false"})
	commands := map[string][]string{
		"web": {"/bin/sh", "-c", "ls / && echo hello"},
		"db":  {"/bin/tests", "-test.run", "Builder|Reader"},
	}
	said := map[string]string{}
	for name, command := range commands {
		for attempt := range uint32(2) {
			exit, text := p.run(name, attempt, "", command...)
			if exit != 0 {
				t.Fatalf("%s: exit %d: %s", name, exit, text)
			}
			said[name] = text
		}
	}
	if exit, text := p.run("quiet", 0, "", "/bin/true"); exit != 0 {
		t.Fatalf("exit %d: %s", exit, text)
	}
	profiles := filepath.Join(c.dir, "kubelet/seccomp/profiles") // where the kubelet has them
	if err := os.MkdirAll(profiles, 0o755); err != nil {
		t.Fatal(err)
	}
	firsts := map[string]*profile.Recording{}
	for name, prefix := range map[string]string{"web": "shop-web-", "db": "base-db-"} {
		file := filepath.Join(recordingsDir, prefix+p.id+".json")
		r := withRuns(t, file, 2) // the restart is appended
		if !r.Complete || r.Boundary != profile.BoundaryFilter || r.Runtime.Name != "runc" || !slices.Equal(r.Workload.Args, commands[name]) {
			t.Fatalf("%s: complete %v %v, boundary %s, runtime %+v, args %q", name, r.Complete, r.Dropped, r.Boundary, r.Runtime, r.Workload.Args)
		}
		firsts[name] = r
		if built := run(t, toolPath, "build", "-o", filepath.Join(profiles, name+".json"), file); built.exit != 0 {
			t.Fatal(built)
		}
	}
	recordings(t, "", 2) // and none of the sandbox
	c.removePod(p.id)

	p = c.pod(map[string]string{record: "again"})
	for name, command := range commands {
		for attempt := range uint32(5) {
			exit, text := p.run(name, attempt, filepath.Join(profiles, name+".json"), command...)
			if exit != 0 || name == "web" && text != said[name] {
				t.Errorf("%s: exit %d: %q, without the profile %q", name, exit, text, said[name])
			}
		}
		withRuns(t, filepath.Join(recordingsDir, "again-"+name+"-"+p.id+".json"), 5)
		noNewDenials(t, firsts[name], "again-"+name+"-", 1)
	}
	if exit, _ := p.run("other", 0, filepath.Join(profiles, "web.json"), "/bin/mkdir", "/x"); exit == 0 {
		t.Error("mkdir was not recorded and is let pass")
	}
	c.removePod(p.id)

	// kubectl exec.
	p = c.pod(map[string]string{record: "exec"})
	id, err := p.start("web", 0, "", "/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := p.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"/bin/mkdir", "/made-by-exec"}, Timeout: 20}); err != nil || r.ExitCode != 0 {
		t.Fatalf("exec: %v, %v", r, err)
	}
	if _, err := p.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: id, Timeout: 20}); err != nil {
		t.Fatal(err)
	}
	if r := lab.ReadRecording(t, recordings(t, "exec-web-"+p.id, 1)[0]); !r.Complete || !slices.Contains(names(r, profile.PhaseExec), "mkdir") || slices.Contains(names(r, profile.PhaseWorkload), "mkdir") {
		t.Errorf("complete %v %v, exec %q, workload %q", r.Complete, r.Dropped, names(r, profile.PhaseExec), names(r, profile.PhaseWorkload))
	}

	// A refusal reaches who asked.
	p = c.pod(map[string]string{record: "../../etc/passwd"})
	if _, err := p.start("web", 0, "", "/bin/true"); err == nil || !strings.Contains(err.Error(), "a name has 1 to 64") {
		t.Errorf("want a refusal, got %v", err)
	}
}

// ctr knows neither annotations nor hooks of its own: it runs our runtime.
func TestCtr(t *testing.T) {
	lab.NeedTool(t, "containerd")
	c := newContainerd(t, config16, "", rootFS(t))
	clearRecordings(t)
	command := []string{"/bin/sh", "-c", "ls / && echo hello"}
	ctr := func(id string, flags ...string) string {
		t.Helper()
		return c.ctr(slices.Concat([]string{"run", "--rm", "--snapshotter", "native", "--runc-binary", filepath.Join(worldDir, "bin/seccompgen-runc")}, flags, []string{"localhost/lab:1", id}, command)...).stdout
	}
	plain := ctr("plain", "--seccomp")
	noRecordings(t)
	ctr("one", "--seccomp", "--env", "SECCOMPGEN_RECORD=ctr")
	r := lab.ReadRecording(t, recordings(t, "ctr-one", 1)[0])
	if !r.Complete || r.Boundary != profile.BoundaryFilter {
		t.Fatalf("complete %v %v, boundary %s", r.Complete, r.Dropped, r.Boundary)
	}
	prof := filepath.Join(t.TempDir(), "profile.json")
	if built := run(t, toolPath, "build", "-o", prof, filepath.Join(recordingsDir, "ctr-one.json")); built.exit != 0 {
		t.Fatal(built)
	}
	for i := range 10 {
		if got := ctr(fmt.Sprintf("again%d", i), "--seccomp", "--seccomp-profile", prof, "--env", "SECCOMPGEN_RECORD=again"); got != plain {
			t.Errorf("got %q, without the profile %q", got, plain)
		}
	}
	noNewDenials(t, r, "again-again", 10)
}

//go:build hooks

package engines

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	interop "google.golang.org/grpc/interop/grpc_testing"

	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
)

var (
	hooksRuns    = flag.Int("hooks.runs", 20, "runs of each container under its profile")
	hooksSeconds = flag.Int("hooks.seconds", 30, "seconds of load in each run")
	hooksAtOnce  = flag.Int("hooks.atonce", 30, "runs at once: they mostly wait")
	hooksOutput  = flag.String("hooks.o", "", "write the table to this `file`")
)

type server struct {
	program string // what go install takes
	args    string // ADDR and PORT are of its own
	request func(addr string) error
}

// servers are programs of others.
var servers = map[string]server{
	"DNS":  {"github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv@v2.10.3", "-dnsserver ADDR -doh= -http01= -https01= -tlsalpn01= -management 127.0.0.1:0", resolve},
	"HTTP": {"golang.org/x/tools/cmd/present@v0.52.0", "-play=false -http ADDR -content /bin", get},
	"MQTT": {"github.com/mochi-mqtt/server/v2/cmd@v2.7.9", "-tcp ADDR -ws 127.0.0.1:0 -info 127.0.0.1:0", talk("\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00", "\x20\x02", "\xc0\x00", "\xd0")},
	"NATS": {"github.com/nats-io/nats-server/v2@v2.15.3", "--addr 127.0.0.1 --port PORT", talk("", "INFO", "CONNECT {}\r\nSUB a 1\r\nPUB a 2\r\nhi\r\nPING\r\n", "MSG a 1 2")},
	"SMTP": {"github.com/emersion/go-smtp/cmd/smtp-debug-server@v0.25.1", "-l ADDR", mail},
	"gRPC": {"google.golang.org/grpc/interop/server@v1.85.0", "-port PORT", call},
}

func resolve(addr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	_, err := r.LookupHost(ctx, "a.example.com.")
	return err
}

func get(addr string) error {
	r, err := (&http.Client{Timeout: patience}).Get("http://" + addr + "/")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	_, err = io.Copy(io.Discard, r.Body)
	return err
}

func mail(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	c, err := smtp.NewClient(conn, "localhost")
	if err != nil {
		return err
	}
	return errors.Join(c.Mail("a@example.com"), c.Rcpt("b@example.com"), c.Noop(), c.Quit())
}

func call(addr string) error {
	conn, err := grpc.NewClient("passthrough:"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = interop.NewTestServiceClient(conn).UnaryCall(ctx, &interop.SimpleRequest{ResponseSize: 1000})
	return err
}

// talk sends and awaits by turns.
func talk(words ...string) func(string) error {
	return func(addr string) error {
		c, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		var said bytes.Buffer
		from := bufio.NewReader(io.TeeReader(c, &said))
		for i, text := range words {
			if i%2 == 0 {
				if _, err := io.WriteString(c, text); err != nil {
					return err
				}
				continue
			}
			for !strings.Contains(said.String(), text) {
				if _, err := from.ReadByte(); err != nil {
					return fmt.Errorf("waiting for %q after %q: %w", text, said.String(), err)
				}
			}
			said.Reset()
		}
		return nil
	}
}

// lastPort is below those that the kernel gives to clients, so that nobody takes one before its server does.
var lastPort atomic.Int32

// address finds one where nobody listens, another each time.
func address(t *testing.T) string {
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20000+lastPort.Add(1))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

// entrypoint starts servers in one way.
type entrypoint struct {
	name     string
	programs []string // that run beside the servers
	servers  int
	command  func(lines []string) []string // of the servers' command lines
	signal   string                        // what ends all of it; a shell passes nothing on
}

var entrypointsOfServers = []entrypoint{
	{"itself", nil, 1, func(lines []string) []string { return strings.Fields(lines[0]) }, "TERM"},
	{"shell", []string{"/bin/busybox"}, 1, func(lines []string) []string { return []string{"/bin/sh", "-c", lines[0] + "; exit $?"} }, "KILL"},
	{"tini", []string{"/bin/tini"}, 1, func(lines []string) []string {
		return append([]string{"/bin/tini", "-s", "--"}, strings.Fields(lines[0])...)
	}, "TERM"},
	{"two", []string{"/bin/busybox"}, 2, func(lines []string) []string {
		return []string{"/bin/sh", "-c", lines[0] + " & " + lines[1] + "; exit $?"}
	}, "KILL"},
}

// patience is how long a request may take: many containers share the machine.
const patience = 20 * time.Second

// container is one with servers.
type container struct {
	entrypoint
	servers []string
}

func (c container) String() string { return c.name + "-" + strings.Join(c.servers, "-") }

// live runs the container under load, from before it starts, and ends it some seconds after all its servers have answered. It
// returns what is wrong with its life.
func (c container) live(t *testing.T, r runner, id string, d time.Duration, start func(command []string) result) (ended result, wrong error) {
	var lines, addrs []string
	for _, name := range c.servers {
		addr := address(t)
		_, port, _ := net.SplitHostPort(addr)
		lines = append(lines, "/bin/"+name+" "+strings.NewReplacer("ADDR", addr, "PORT", port).Replace(servers[name].args))
		addrs = append(addrs, addr)
	}
	gone, over := make(chan bool), make(chan bool)
	var group, load sync.WaitGroup
	group.Go(func() {
		defer load.Wait()
		defer close(over)
		up := make(chan bool, len(addrs))
		for i, addr := range addrs {
			request := servers[c.servers[i]].request
			said := sync.OnceFunc(func() { up <- true })
			for range 2 {
				load.Go(func() {
					for pause := time.NewTicker(50 * time.Millisecond); ; {
						if request(addr) == nil {
							said()
						}
						select {
						case <-over:
							return
						case <-pause.C:
						}
					}
				})
			}
		}
		for range addrs {
			select {
			case <-up:
			case <-gone:
				wrong = errors.New("it ended before it answered")
				return
			}
		}
		select {
		case <-time.After(d):
		case <-gone:
			wrong = errors.New("it ended early")
			return
		}
		for i, addr := range addrs {
			if err := servers[c.servers[i]].request(addr); err != nil {
				wrong = fmt.Errorf("%s does not answer at the end: %w", c.servers[i], err)
			}
		}
		if killed := r.kill(id, c.signal); killed.exit != 0 {
			wrong = errors.Join(wrong, errors.New(killed.String()))
		}
	})
	ended = start(c.command(lines))
	close(gone)
	group.Wait()
	return ended, wrong
}

// saw checks that a recording is whole and has read the programs that ran.
func (c container) saw(t *testing.T, r *profile.Recording) {
	t.Helper()
	if !r.Complete {
		t.Errorf("%s is not complete: %v", c, r.Dropped)
	}
	want := slices.Clone(c.programs)
	for _, name := range c.servers {
		want = append(want, "/bin/"+name)
	}
	slices.Sort(want)
	var got []string
	for _, p := range r.Programs {
		got = append(got, p.Path)
		if isGo := !slices.Contains(c.programs, p.Path); p.Unread != "" || (p.Go != "") != isGo {
			t.Errorf("%s: program %s: %q, Go %q", c, p.Path, p.Unread, p.Go)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: programs %q ran, want %q", c, got, want)
	}
}

// end returns the end of what a server said.
func end(text string) string { return text[max(0, len(text)-500):] }

// row is one of the table.
type row struct {
	container
	profile string
	first   result // how it ended when it was recorded
	killed  atomic.Int32
}

// TestHooks records servers by the hook for a second, and keeps them busy under what build makes of that by default.
func TestHooks(t *testing.T) {
	commit, err := lab.Commit()
	if *hooksOutput != "" && err != nil {
		t.Fatal(err)
	}
	names, rootfs := slices.Sorted(maps.Keys(servers)), rootFS(t)
	lab.CopyFile(t, lab.NeedTool(t, "tini-static"), filepath.Join(rootfs, "bin/tini"))
	var table bytes.Buffer
	fmt.Fprintf(&table, `# Go servers under profiles of a second

Each row: a container was recorded by the hook, under load from before its start until it was ended, a second after its servers
first answered, and a profile was built of that by default, with `+"`--deny kill`"+` (SCMP_ACT_KILL_PROCESS). Then %d runs under it, each with %d s of the
same load, %d at a time. Killed: the runs that ended early, did not answer at the end, or ended otherwise than the recorded one. `+"`make hooks`"+`
measures it again.

| server | program, built by `+"`go install`"+` |
|---|---|
`, *hooksRuns, *hooksSeconds, *hooksAtOnce)
	for _, name := range names {
		dir := t.TempDir()
		cmd := exec.Command("go", "install", servers[name].program)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOBIN="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go install %s: %v\n%s", servers[name].program, err, out)
		}
		files, err := os.ReadDir(dir)
		if err != nil || len(files) != 1 {
			t.Fatalf("%s makes %v, %v", servers[name].program, files, err)
		}
		lab.CopyFile(t, filepath.Join(dir, files[0].Name()), filepath.Join(rootfs, "bin", name))
		fmt.Fprintf(&table, "| %s | %s |\n", name, servers[name].program)
	}
	fmt.Fprintf(&table, `
Entrypoints: the server itself and an init (tini) are ended by SIGTERM. A shell that waits for a server, or for one of two, passes no signal on
and is ended by SIGKILL.

| engine | runtime | entrypoint | servers | calls allowed | runs | killed |
|---|---|---|---|---:|---:|---:|
`)
	engines := []struct {
		name, runtime string
		make          func(t *testing.T) runner
	}{
		{"Podman", "runc", func(t *testing.T) runner { return podmanRunner(t, lab.NeedTool(t, "runc"), rootfs, "host") }},
		{"Podman", "crun", func(t *testing.T) runner {
			return podmanRunner(t, lab.FindCrun(t, filepath.Join(worldDir, "bin")), rootfs, "host")
		}},
		{"Docker", "runc", func(t *testing.T) runner { return dockerRunner(t, "runc", rootfs, "host") }},
		{"Docker", "crun", func(t *testing.T) runner { return dockerRunner(t, "crun", rootfs, "host") }},
		{"containerd", "runc", func(t *testing.T) runner { return ctrRunner(t, "runc", rootfs, "--net-host") }},
		{"containerd", "crun", func(t *testing.T) runner { return ctrRunner(t, "crun", rootfs, "--net-host") }},
	}
	total := 0
	for turn, e := range engines {
		t.Run(e.name+"/"+e.runtime, func(t *testing.T) {
			clearRecordings(t)
			r := e.make(t)
			var rows []*row
			for _, name := range names {
				rows = append(rows, &row{container: container{entrypointsOfServers[0], []string{name}}})
			}
			for i, entry := range entrypointsOfServers[1:] { // of other servers with each engine
				at := 2*turn + i
				rows = append(rows, &row{container: container{entry, slices.Concat(names, names, names)[at : at+entry.servers]}})
			}
			var version string
			for _, row := range rows {
				var path string
				first, wrong := row.live(t, r, row.String(), time.Second, func(command []string) (ended result) {
					path, ended = r.record(row.String(), command)
					return ended
				})
				if wrong != nil {
					t.Fatalf("%s while it is recorded: %v: %s", row, wrong, end(first.stderr))
				}
				recording := lab.ReadRecording(t, path)
				row.saw(t, recording)
				version = recording.Runtime.Name + " " + recording.Runtime.Version
				if recording.Runtime.Name != e.runtime {
					t.Errorf("%s ran under %s", row, version)
				}
				lab.CopyFile(t, path, filepath.Join(t.ArtifactDir(), row.String()+".json"))
				row.first, row.profile = first, filepath.Join(t.TempDir(), "profile.json")
				if built := run(t, toolPath, "build", "--deny", "kill", "-o", row.profile, path); built.exit != 0 || strings.Contains(built.stderr, "is not known") {
					t.Fatal(built)
				}
			}
			var group sync.WaitGroup
			slots := make(chan bool, *hooksAtOnce)
			for i := range *hooksRuns {
				for _, row := range rows {
					slots <- true
					group.Go(func() {
						id := fmt.Sprintf("%s-%d", row, i)
						ended, wrong := row.live(t, r, id, time.Duration(*hooksSeconds)*time.Second, func(command []string) result { return r.run(id, row.profile, command) })
						if wrong != nil || ended.exit != row.first.exit {
							t.Errorf("%s: %v; exit %d, when it was recorded %d: %s", id, wrong, ended.exit, row.first.exit, end(ended.stderr))
							row.killed.Add(1)
						}
						<-slots
					})
				}
			}
			group.Wait()
			for _, row := range rows {
				fmt.Fprintf(&table, "| %s | %s | %s | %s | %d | %d | %d |\n", e.name, version, row.name, strings.Join(row.servers, ", "), len(allowed(t, row.profile)), *hooksRuns, row.killed.Load())
				total += *hooksRuns
			}
		})
	}
	fmt.Fprintf(&table, "\n%d runs. Written on %s, commit %s.\n", total, time.Now().UTC().Format(time.DateOnly), commit)
	if *hooksOutput == "" {
		t.Log(table.String())
	} else if err := os.WriteFile(*hooksOutput, table.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

//go:build hooks

package engines

import (
	"bufio"
	"bytes"
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

	"github.com/seccompgen/seccompgen/test/lab"
)

var (
	hooksRuns    = flag.Int("hooks.runs", 20, "runs of each server under its profile")
	hooksSeconds = flag.Int("hooks.seconds", 30, "seconds of load in each run")
	hooksAtOnce  = flag.Int("hooks.atonce", 20, "runs at once: they mostly wait")
	hooksOnly    = flag.String("hooks.only", "", "only the server with this `name`")
	hooksOutput  = flag.String("hooks.o", "", "write the table to this `file`")
)

type server struct {
	program string // what go install takes
	args    string // ADDR and PORT are of its own
	request func(addr string) error
}

// servers are programs of others.
var servers = map[string]server{
	"HTTP": {"golang.org/x/tools/cmd/present@v0.52.0", "-play=false -http ADDR -content /bin", get},
	"NATS": {"github.com/nats-io/nats-server/v2@v2.15.3", "--addr 127.0.0.1 --port PORT", talk("", "INFO", "CONNECT {}\r\nSUB a 1\r\nPUB a 2\r\nhi\r\nPING\r\n", "MSG a 1 2")},
	"MQTT": {"github.com/mochi-mqtt/server/v2/cmd@v2.7.9", "-tcp ADDR -ws 127.0.0.1:0 -info 127.0.0.1:0", talk("\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01a", "\x20\x02", "\xc0\x00", "\xd0")},
	"SMTP": {"github.com/emersion/go-smtp/cmd/smtp-debug-server@v0.25.1", "-l ADDR", mail},
}

func get(addr string) error {
	r, err := http.Get("http://" + addr + "/")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	_, err = io.Copy(io.Discard, r.Body)
	return err
}

func mail(addr string) error {
	c, err := smtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	return errors.Join(c.Mail("a@example.com"), c.Rcpt("b@example.com"), c.Noop(), c.Quit())
}

// talk sends and awaits by turns.
func talk(words ...string) func(string) error {
	return func(addr string) error {
		c, err := net.DialTimeout("tcp", addr, 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
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

// recordedSeconds is long enough for a second of load where twenty others start.
const recordedSeconds = 3

// serving puts a server behind a shell that lets it live for a time, and fails if it did not.
func serving(name, addr string, seconds int) []string {
	_, port, _ := net.SplitHostPort(addr)
	args := strings.NewReplacer("ADDR", addr, "PORT", port).Replace(servers[name].args)
	return []string{"/bin/sh", "-c", fmt.Sprintf("/bin/%s %s & p=$!; sleep %d; kill -KILL $p; wait $p; test $? = 137", name, args, seconds)}
}

// load makes requests until the server goes, which may refuse the first and the last of them.
func load(t *testing.T, name, addr string, gone <-chan bool) {
	var group sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for range 4 {
		group.Go(func() {
			for pause := time.NewTicker(20 * time.Millisecond); ; {
				if err := servers[name].request(addr); err == nil {
					mu.Lock()
					made++
					mu.Unlock()
				}
				select {
				case <-gone:
					return
				case <-pause.C:
				}
			}
		})
	}
	if group.Wait(); made < 8 {
		t.Errorf("%s at %s answered %d requests: that is no load", name, addr, made)
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

// TestHooks records servers by the hook for a moment, and keeps them busy under what build makes of that by default.
func TestHooks(t *testing.T) {
	rootfs := rootFS(t)
	if *hooksOnly != "" {
		maps.DeleteFunc(servers, func(name string, _ server) bool { return name != *hooksOnly })
	}
	for name, s := range servers {
		dir := t.TempDir()
		cmd := exec.Command("go", "install", s.program)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOBIN="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go install %s: %v\n%s", s.program, err, out)
		}
		files, err := os.ReadDir(dir)
		if err != nil || len(files) != 1 {
			t.Fatalf("%s makes %v, %v", s.program, files, err)
		}
		lab.CopyFile(t, filepath.Join(dir, files[0].Name()), filepath.Join(rootfs, "bin", name))
	}
	var table bytes.Buffer
	fmt.Fprintf(&table, "# Go servers under profiles of a moment\n\nEach row: a container with the server was recorded by the hook for three seconds, its start and some load, and a profile was built of that "+
		"by default, with `--deny kill`. Then %d runs of %d s under load, %d at a time. `make hooks` measures it again.\n\n", *hooksRuns, *hooksSeconds, *hooksAtOnce)
	fmt.Fprintf(&table, "| engine | runtime | server | program | calls allowed | runs | killed |\n|---|---|---|---|---:|---:|---:|\n")
	engines := []struct {
		name, runtime string
		make          func(t *testing.T) runner
	}{
		{"Podman", "runc", func(t *testing.T) runner { return podmanRunner(t, lab.NeedTool(t, "runc"), rootfs, "host") }},
		{"Podman", "crun", func(t *testing.T) runner {
			return podmanRunner(t, lab.FindCrun(t, filepath.Join(worldDir, "bin")), rootfs, "host")
		}},
		{"Docker", "runc", func(t *testing.T) runner { return dockerRunner(t, rootfs, "host") }},
		{"containerd (ctr)", "runc", func(t *testing.T) runner { return ctrRunner(t, rootfs, "--net-host") }},
	}
	for _, e := range engines {
		t.Run(e.name+"/"+e.runtime, func(t *testing.T) {
			clearRecordings(t)
			r := e.make(t)
			for _, name := range slices.Sorted(maps.Keys(servers)) {
				during := func(addr string, do func()) {
					gone := make(chan bool)
					var group sync.WaitGroup
					group.Go(func() { load(t, name, addr, gone) })
					do()
					close(gone)
					group.Wait()
				}
				var path string
				addr := address(t)
				during(addr, func() { path = r.record(name, serving(name, addr, recordedSeconds)) })
				prof := filepath.Join(t.TempDir(), "profile.json")
				if built := run(t, toolPath, "build", "--deny", "kill", "-o", prof, path); built.exit != 0 || strings.Contains(built.stderr, "is not known") {
					t.Fatal(built)
				}
				var mu sync.Mutex
				killed := 0
				var group sync.WaitGroup
				slots := make(chan bool, *hooksAtOnce)
				for i := range *hooksRuns {
					slots <- true
					group.Go(func() {
						addr := address(t)
						during(addr, func() {
							if got := r.run(fmt.Sprintf("%s-%d", name, i), prof, serving(name, addr, *hooksSeconds)); got.exit != 0 {
								t.Errorf("%s under the profile: exit %d: %s", name, got.exit, got.stderr[max(0, len(got.stderr)-500):])
								mu.Lock()
								killed++
								mu.Unlock()
							}
						})
						<-slots
					})
				}
				group.Wait()
				fmt.Fprintf(&table, "| %s | %s | %s | %s | %d | %d | %d |\n", e.name, e.runtime, name, servers[name].program, len(allowed(t, prof)), *hooksRuns, killed)
			}
		})
	}
	if *hooksOutput == "" {
		t.Log(table.String())
	} else if err := os.WriteFile(*hooksOutput, table.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

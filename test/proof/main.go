// proof runs the long proofs on real Go modules and prints their tables as Markdown: make workloads, make mutations.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"github.com/seccompgen/seccompgen/internal/verify"
	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/test/lab"
)

// workload is a row of testdata/workloads.json.
type workload struct {
	Name    string   `json:"name"`
	Module  string   `json:"module,omitempty"` // M@V; "" for the standard library
	Package string   `json:"package"`
	Env     []string `json:"env"`
	Flags   []string `json:"flags"`
}

type proof struct {
	out      io.Writer
	commit   string // that is measured
	bin      string // directory of seccompgen and oci-hook
	work     string
	state    string
	runs     int
	runtimes []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "proof:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	commit, err := lab.Commit()
	if err != nil {
		return err
	}
	p := &proof{commit: commit}
	var list, only, runtimes, output string
	var mutate, policies, overhead, baselines, speed, static, alarms, repairs, shrinks, hosts bool
	flag.StringVar(&p.bin, "bin", "bin", "`directory` of seccompgen and oci-hook")
	flag.StringVar(&list, "workloads", "testdata/workloads.json", "the workloads, a `file`")
	flag.StringVar(&only, "only", "", "only the workloads with these `names`, separated by commas")
	flag.StringVar(&runtimes, "runtimes", "runc", "OCI `runtimes`, separated by commas")
	flag.IntVar(&p.runs, "runs", 20, "verifying `runs` of each combination")
	flag.StringVar(&output, "o", "", "write the table to this `file`, whole or not at all")
	flag.BoolVar(&mutate, "mutations", false, "take one call after the other out of the exact profile instead")
	flag.BoolVar(&policies, "policies", false, "compare the policies on what follows one recorded run instead")
	flag.StringVar(&p.state, "state", "", "with -mutations: keep what is done in this `directory`, and go on from it")
	flag.BoolVar(&alarms, "alarms", false, "verify unmutated robust profiles many times instead")
	flag.BoolVar(&repairs, "repairs", false, "repair from a profile that allows nothing instead")
	flag.BoolVar(&shrinks, "shrinks", false, "shrink, and confirm the certificates instead")
	flag.BoolVar(&overhead, "overhead", false, "compare record, and verify, with a plain run instead")
	flag.BoolVar(&baselines, "baselines", false, "measure what the runtimes' own init needs instead, as JSON")
	flag.BoolVar(&speed, "speed", false, "measure build and the static analysis instead")
	flag.BoolVar(&static, "static", false, "compare what was recorded with what the machine code can call instead")
	flag.BoolVar(&hosts, "hosts", false, "record on each host of a matrix, and verify on each other, instead")
	flag.Parse()
	p.runtimes = strings.Split(runtimes, ",")
	data, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	var workloads []workload
	if err := json.Unmarshal(data, &workloads); err != nil {
		return fmt.Errorf("decode %s: %w", list, err)
	}
	if only != "" {
		names := strings.Split(only, ",")
		workloads = slices.DeleteFunc(workloads, func(w workload) bool { return !slices.Contains(names, w.Name) })
	}
	if p.bin, err = filepath.Abs(p.bin); err != nil {
		return err
	}
	if p.state != "" { // seccompgen runs in other directories
		if p.state, err = filepath.Abs(p.state); err != nil {
			return err
		}
	}
	if p.work, err = os.MkdirTemp("/var/tmp", "seccompgen-proof-"); err != nil {
		return err
	}
	defer os.RemoveAll(p.work)
	var table bytes.Buffer
	p.out = io.MultiWriter(os.Stdout, &table)
	prove := p.workloads
	switch {
	case baselines:
		prove = p.baselines
	case speed:
		prove = p.speed
		p.head(speedIntro)
	case static:
		prove = p.static
		p.head(staticIntro)
	case overhead:
		prove = p.overhead
		p.head(overheadIntro)
	case policies:
		prove = p.policies
		p.head(policiesIntro)
	case alarms:
		prove = p.alarms
		p.head(alarmsIntro)
	case repairs:
		prove = p.repairs
		p.head(repairsIntro)
	case shrinks:
		prove = p.shrinks
		p.head(shrinksIntro)
	case hosts:
		p.runs = 1
		prove = p.hosts
		p.head(hostsIntro)
	case mutate:
		prove = p.mutations
		p.head(mutationsIntro)
	default:
		p.head(workloadsIntro)
	}
	if err := prove(ctx, workloads); err != nil || output == "" {
		return err
	}
	return renameio.WriteFile(output, table.Bytes(), 0o644)
}

const (
	workloadsIntro = "# Real tests under their profiles\n\nEach row: the tests were recorded once, a profile was built with the default policy, " +
		"and they were verified under it. `make workloads` measures it again.\n\n"
	mutationsIntro = "# Every call that is removed is named\n\nEach row: one call after the other is taken out of the exact profile of as many recorded runs as are verified, and " +
		"`verify --keep-going` runs the tests under what is left. A call that every recorded run made must be denied and named in every run. `make mutations` measures it again.\n\n"
	alarmsIntro = "# No false alarms\n\nEach row: the tests were recorded, a profile was built with the default policy, and verified under it in as many runs as stand there. " +
		"`make alarms` measures it again.\n\n"
	repairsIntro = "# From a profile that allows nothing\n\nEach row: `verify --repair` began with a profile that allows nothing and ended with one that verifies. `make repairs` measures it again.\n\n"
	shrinksIntro = "# As small as the tests allow\n\nEach row: `verify --shrink` made the robust profile of ten recorded runs 1-minimal, and for every call that is left the runs without it were made again, by " +
		"plain `verify`, with the errno that it was tried with. `make shrinks` measures it again.\n\n"
	policiesIntro = "# One recorded run, and those that follow\n\nEach workload was recorded once; a profile of each policy was then verified in many runs. " +
		"`robust` is the default. `make policies` measures it again.\n\n"
	hostsIntro = "# Recorded on one host, run on another\n\ntestdata/hosts listens, serves, dials by name, copies, locks, waits, fills its heap and runs a child. It was recorded on each host, and each other one verified it " +
		"under the profile that the default policy built. The hosts differ from the first in one thing each (test/lab/hosts_linux.go): a sysctl, a filter beneath the program that answers EAFNOSUPPORT, " +
		"the program's processors, its auxiliary vector, its environment, this machine's huge pages, its cgroup mount. `make hosts` measures it again.\n\n"
	overheadIntro = "\n## A run of ten seconds\n\nWall time of the same bundle, run plainly and recorded, and under a profile plainly and watched, turn by turn.\n\n"
)

// head says what a reader needs to trust the table.
func (p *proof) head(intro string) {
	fmt.Fprint(p.out, intro)
	kernel, _ := exec.Command("uname", "-r").Output()
	fmt.Fprintf(p.out, "%s, commit %s, kernel %s, %d cores, %s, runs: %d\n\n", time.Now().UTC().Format("2006-01-02"),
		p.commit, bytes.TrimSpace(kernel), runtime.NumCPU(), runtime.Version(), p.runs)
}

// open returns a writable copy of the workload's module, and a command in it.
func (p *proof) open(ctx context.Context, w workload) (string, error) {
	if w.Module == "" {
		return p.work, nil
	}
	out, err := exec.CommandContext(ctx, "go", "mod", "download", "-json", w.Module).Output()
	if err != nil {
		return "", fmt.Errorf("download %s: %w", w.Module, err)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(out, &m); err != nil {
		return "", err
	}
	dir := filepath.Join(p.work, w.Name)
	if err := os.CopyFS(dir, os.DirFS(m.Dir)); err != nil {
		return "", fmt.Errorf("copy %s: %w", w.Module, err)
	}
	// The module cache is read only, and tests write beside themselves.
	return dir, exec.CommandContext(ctx, "chmod", "-R", "u+w", dir).Run()
}

// seccompgen runs the tool, and returns what it printed. A verdict that is negative is no error.
func (p *proof) seccompgen(ctx context.Context, w workload, dir string, args ...string) (stdout []byte, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "seccompgen"), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GOFLAGS=-mod=mod"), w.Env...)
	var talk bytes.Buffer
	cmd.Stderr = &talk
	stdout, err = cmd.Output()
	var status *exec.ExitError
	if errors.As(err, &status) && status.ExitCode() == 2 {
		return stdout, nil
	}
	if err != nil {
		said := strings.TrimSpace(talk.String())
		return nil, fmt.Errorf("seccompgen %s: %w: %s", strings.Join(args, " "), err, said[max(0, len(said)-600):])
	}
	return stdout, nil
}

// row is a line of the workloads' table.
type row struct {
	workload, runtime   string
	nnp                 bool
	recorded, allowed   int
	passed, of, denials int
	seconds             float64
	verdict             string
}

func (p *proof) workloads(ctx context.Context, all []workload) error {
	type job struct {
		w       workload
		runtime string
		nnp     bool
	}
	var jobs []job
	dirs := map[string]string{}
	for _, w := range all {
		dir, err := p.open(ctx, w)
		if err != nil {
			return err
		}
		dirs[w.Name] = dir
		for _, rt := range p.runtimes {
			jobs = append(jobs, job{w, rt, true}, job{w, rt, false})
		}
	}
	rows := make([]row, len(jobs))
	var group sync.WaitGroup
	slots := make(chan struct{}, runtime.NumCPU())
	for i, j := range jobs {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			rows[i] = p.one(ctx, j.w, dirs[j.w.Name], j.runtime, j.nnp, i)
			fmt.Fprintf(os.Stderr, "%+v\n", rows[i])
		})
	}
	group.Wait()
	fmt.Fprintln(p.out, "| workload | runtime | noNewPrivileges | calls recorded | calls allowed | runs passed | denials | s a run |")
	fmt.Fprintln(p.out, "|---|---|---|---|---|---|---|---|")
	failed := 0
	for _, r := range rows {
		passed := fmt.Sprintf("%d of %d", r.passed, r.of)
		if r.verdict != "" {
			passed += ": " + r.verdict
			failed++
		}
		fmt.Fprintf(p.out, "| %s | %s | %t | %d | %d | %s | %d | %.1f |\n", r.workload, r.runtime, r.nnp, r.recorded, r.allowed, passed, r.denials, r.seconds)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d combinations do not hold", failed, len(rows))
	}
	return nil
}

// one records, builds and verifies one combination.
func (p *proof) one(ctx context.Context, w workload, dir, rt string, nnp bool, i int) row {
	r := row{workload: w.Name, runtime: rt, nnp: nnp, of: p.runs}
	rec, prof := filepath.Join(p.work, fmt.Sprintf("%d-recording.json", i)), filepath.Join(p.work, fmt.Sprintf("%d-profile.json", i))
	common := []string{"--runtime", rt, fmt.Sprintf("--no-new-privileges=%t", nnp)}
	rest := append([]string{w.Package, "--"}, w.Flags...)
	_, err := p.seccompgen(ctx, w, dir, slices.Concat([]string{"record", "-o", rec}, common, rest)...)
	if err == nil {
		_, err = p.seccompgen(ctx, w, dir, "build", "-o", prof, rec)
	}
	var out []byte
	if err == nil {
		out, err = p.seccompgen(ctx, w, dir, slices.Concat([]string{"verify", "--json", "--profile", prof, "--recording", rec, "--runs", fmt.Sprint(p.runs)}, common, rest)...)
	}
	if err != nil {
		r.verdict = err.Error()
		return r
	}
	var report verify.Report
	if err := json.Unmarshal(out, &report); err != nil {
		r.verdict = err.Error()
		return r
	}
	recording, err := read(rec, profile.ReadRecording)
	if err != nil {
		r.verdict = err.Error()
		return r
	}
	r.runtime = recording.Runtime.Name + " " + recording.Runtime.Version
	r.recorded, r.allowed, r.denials = distinct(recording), report.Profile.Allowed, len(report.Denials)
	for _, run := range report.Runs {
		r.seconds += run.Seconds / float64(len(report.Runs))
	}
	r.passed = len(report.Runs)
	if report.Verdict != verify.Pass {
		r.passed--
		r.verdict = string(report.Verdict) + ": " + report.Reason
	}
	return r
}

// distinct counts the (ABI, number) pairs of the workload's phases.
func distinct(r *profile.Recording) int {
	seen := map[string]bool{}
	for _, s := range r.Syscalls {
		if s.Phase != profile.PhaseRuntime {
			seen[fmt.Sprint(s.ABI, s.Nr)] = true
		}
	}
	return len(seen)
}

func read[T any](path string, decode func(io.Reader) (*T, error)) (*T, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return decode(f)
}

package programs

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/reexec"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/gobin"
	"github.com/seccompgen/seccompgen/profile"
)

// Child is the name under which a program that uses this package executes itself to read a file. Its main calls
// reexec.Init first.
const Child = "seccompgen-program"

func init() { reexec.Register(Child, child) }

const (
	nobody      = 65534
	childMemory = 1 << 30 // bytes of address space, and the file's size twice, beside what it begins with
	maxAnswer   = 8 << 20 // bytes of a line
	maxText     = 200     // bytes of what a file says of itself
)

// ask lets a child read a file. The child writes a line of what the file is, and then one with its analysis: what takes too
// long to analyze is known to be Go all the same.
func ask(ctx context.Context, f *os.File, known []string) (profile.Program, error) {
	var out []byte
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread goes with this goroutine: what is set here is the child's and nobody else's. Its end would kill the
		// child.
		runtime.LockOSThread()
		if err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err == nil {
			out, err = run(ctx, f, known)
		}
	}()
	<-done
	return decode(ctx, out, err, known)
}

// decode reads what a child has answered, with the error that it ended with. It may have been taken over by the file.
func decode(ctx context.Context, out []byte, err error, known []string) (profile.Program, error) {
	lines := bytes.SplitN(out, []byte{'\n'}, 3)
	var p profile.Program
	decodeErr := strict(lines[0], &p)
	if decodeErr == nil && (p.File != nil || p.Static != nil || p.SHA256 == "") {
		decodeErr = errors.New("nonsense was answered")
	}
	if decodeErr != nil {
		return profile.Program{}, fmt.Errorf("it could not be read: %w", errors.Join(err, decodeErr))
	}
	if p.Go == "" || p.Unread != "" || slices.Contains(known, p.SHA256) {
		return p, nil
	}
	if len(lines) < 3 {
		p.Unread = "its machine code could not be analyzed: " + describe(ctx, err)
		return p, nil
	}
	var a analysis
	if err := strict(lines[1], &a); err != nil {
		return profile.Program{}, fmt.Errorf("its analysis could not be read: %w", err)
	}
	p.Unread, p.Static = a.Unread, a.Static
	if a.Static == nil {
		return p, nil
	}
	if err := a.Static.Check(); err != nil {
		return profile.Program{}, fmt.Errorf("its analysis could not be read: %w", err)
	}
	return p, nil
}

func describe(ctx context.Context, err error) string {
	switch {
	case ctx.Err() != nil:
		return "there was no time left"
	case err != nil:
		return err.Error()
	}
	return "nothing was answered"
}

func strict(data []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(to)
}

func run(ctx context.Context, f *os.File, known []string) ([]byte, error) {
	out := &limited{}
	start := func(who *syscall.Credential) (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, reexec.Self())
		cmd.Args = []string{Child}
		cmd.Env = []string{}
		cmd.Dir = "/"
		cmd.Stdin = strings.NewReader(strings.Join(known, "\n"))
		cmd.Stdout = out
		cmd.ExtraFiles = []*os.File{f}
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Credential: who}
		return cmd, cmd.Start()
	}
	cmd, err := start(&syscall.Credential{Uid: nobody, Gid: nobody})
	if err != nil && os.Geteuid() != 0 || errors.Is(err, unix.EINVAL) { // nobody has no number in this user namespace
		cmd, err = start(nil)
	}
	if err != nil {
		return nil, err
	}
	err = cmd.Wait()
	return out.Bytes(), err
}

// limited keeps what may be an answer.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > 2*maxAnswer {
		return 0, errors.New("the answer is too long")
	}
	return l.Buffer.Write(p)
}

type analysis struct {
	Unread string          `json:"unread,omitempty"`
	Static *profile.Static `json:"static,omitempty"`
}

// child reads the file that is its descriptor 3.
func child() {
	if err := readAsChild(os.NewFile(3, "program"), os.Stdin, os.Stdout); err != nil {
		os.Exit(1)
	}
}

func readAsChild(f *os.File, known io.Reader, to io.Writer) error {
	if err := limitSelf(f); err != nil {
		return err
	}
	var hashes []string
	for s := bufio.NewScanner(known); s.Scan(); {
		hashes = append(hashes, s.Text())
	}
	e := json.NewEncoder(to)
	p, err := Identify(f)
	if err != nil {
		return err
	}
	if err := e.Encode(p); err != nil || p.Go == "" || p.Unread != "" || slices.Contains(hashes, p.SHA256) {
		return err
	}
	static, err := Analyze(f)
	if err != nil {
		return e.Encode(analysis{Unread: "its machine code could not be analyzed: " + short(err.Error())})
	}
	return e.Encode(analysis{Static: static})
}

// limitSelf gives away what reading a file does not need.
func limitSelf(f *os.File) error {
	var size, resident uint64
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	memory := childMemory + 2*uint64(info.Size())
	debug.SetMemoryLimit(int64(memory / 4 * 3))
	for limit, n := range map[int]uint64{
		unix.RLIMIT_AS: size*uint64(os.Getpagesize()) + memory, unix.RLIMIT_CPU: uint64(math.Ceil(maxTime.Seconds())) * uint64(runtime.NumCPU()),
		unix.RLIMIT_NOFILE: 16, unix.RLIMIT_FSIZE: 0, unix.RLIMIT_CORE: 0,
	} {
		if err := unix.Setrlimit(limit, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return err
		}
	}
	return nil
}

// Identify tells what a file is. Go is certain of a program of Go's; that one is none is said only of an ELF file that
// has all that would tell.
func Identify(f *os.File) (profile.Program, error) {
	h := sha256.New()
	size, err := io.Copy(h, io.NewSectionReader(f, 0, math.MaxInt64))
	if err != nil {
		return profile.Program{}, err
	}
	p := profile.Program{SHA256: hex.EncodeToString(h.Sum(nil)), Size: size}
	ef, err := elf.NewFile(f)
	if err != nil {
		p.Unread = "what it is cannot be told: " + short(err.Error())
		return p, nil
	}
	goSection := false
	for _, s := range ef.Sections {
		switch {
		case s.Name == ".note.go.buildid":
			p.BuildID = short(noteOf(s, ef.ByteOrder))
			goSection = true
		case s.Name == ".note.gnu.build-id" && p.BuildID == "":
			p.BuildID = hex.EncodeToString([]byte(noteOf(s, ef.ByteOrder)))
		case s.Name == ".go.buildinfo", strings.HasSuffix(s.Name, ".gopclntab"):
			goSection = true
		}
	}
	info, err := buildinfo.Read(f)
	switch {
	case err == nil:
		p.Go = short(info.GoVersion)
	case goSection:
		p.Go = "unknown"
	case len(ef.Sections) == 0:
		p.Unread = "it has no sections that tell what it is, as if it were packed"
	}
	return p, nil
}

// noteOf returns what the first note of a section holds, if that is no longer than a build id.
func noteOf(s *elf.Section, order binary.ByteOrder) string {
	data := make([]byte, min(s.Size, 1024))
	if n, err := io.ReadFull(s.Open(), data); err != nil || n < 12 {
		return ""
	}
	name, desc := uint64(order.Uint32(data)), uint64(order.Uint32(data[4:]))
	from := 12 + (name+3)&^3
	if name > 16 || desc > maxText || from+desc > uint64(len(data)) {
		return ""
	}
	return string(data[from : from+desc])
}

func short(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return '?'
		}
		return r
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), maxText)], "")
}

// Inspect returns all that is known of a Go program which the user has.
func Inspect(f *os.File) (profile.Binary, error) {
	p, err := Identify(f)
	if err != nil {
		return profile.Binary{}, err
	}
	if p.Go == "" {
		return profile.Binary{}, gobin.ErrNotGo
	}
	reach, err := gobin.AnalyzeFile(f)
	if err != nil {
		return profile.Binary{}, err
	}
	p.Static = static(reach)
	return profile.Binary{Program: p, Interpreter: reach.Interpreter, C: reach.C, Plugins: reach.Plugins}, nil
}

// Analyze returns what the machine code of a Go program can call.
func Analyze(f *os.File) (*profile.Static, error) {
	reach, err := gobin.AnalyzeFile(f)
	if err != nil {
		return nil, err
	}
	return static(reach), nil
}

func static(reach *gobin.Reach) *profile.Static {
	s := &profile.Static{GoRuntime: []profile.StaticCall{}, Reachable: []profile.StaticCall{}, Unresolved: []string{}}
	for _, c := range gobin.GoRuntime(reach) {
		if c.Default {
			s.GoRuntime = append(s.GoRuntime, staticCall(c.ABI, c.Number, c.Reason+" ("+string(c.Category)+")", c.Funcs))
		}
	}
	for _, c := range reach.Calls {
		s.Reachable = append(s.Reachable, staticCall(c.ABI, c.Number, "", c.Funcs))
	}
	for _, u := range reach.Unresolved {
		s.Unresolved = append(s.Unresolved, u.Func)
	}
	return s
}

func staticCall(abi string, nr int, text string, functions []string) profile.StaticCall {
	if functions == nil {
		functions = []string{}
	}
	a := specs.Arch(abi)
	return profile.StaticCall{ABI: a, Nr: uint32(nr), Name: profile.Name(a, uint32(nr)), Text: text, Functions: functions}
}

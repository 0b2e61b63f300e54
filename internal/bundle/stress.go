package bundle

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Variation is how one run differs from the plain one: settings that change which calls a Go program makes, and not
// what it computes.
type Variation struct {
	Env   []string // K=V, of the Go runtime
	Flags []string // of a test binary
}

// Stress returns the variation of a run; 1 is the first, and plain. It depends on the number alone, so that a run can be
// had again. GOGC=5 makes the whole set of calls that come and go appear (measured), asyncpreemptoff takes three of them
// away, few and many threads change what sleeps and wakes, and tests in another order leave other things behind.
func Stress(run int) Variation {
	seed := fmt.Sprintf("-test.shuffle=%d", run)
	all := []Variation{
		{},
		{Env: []string{"GOGC=5"}},
		{Env: []string{"GOMAXPROCS=1"}},
		{Env: []string{"GODEBUG=asyncpreemptoff=1"}},
		{Env: []string{"GOMAXPROCS=16", "GOGC=10"}, Flags: []string{seed}},
		{Flags: []string{"-test.cpu=4", seed}},
		{Env: []string{"GOGC=off"}, Flags: []string{"-test.cpu=2"}},
	}
	return all[(run-1)%len(all)]
}

// Vary returns the bundle with a variation, and keeps what the user has set: a variable of the container's environment
// stays, and the flags of the command line come after ours.
func (b *Bundle) Vary(v Variation) *Bundle {
	spec, process := *b.Spec, *b.Spec.Process
	process.Env = slices.Clone(process.Env)
	varied := slices.Clone(b.Varied)
	for _, kv := range v.Env {
		key, value, _ := strings.Cut(kv, "=")
		i := slices.IndexFunc(process.Env, func(e string) bool { return strings.HasPrefix(e, key+"=") })
		switch {
		case i < 0:
			process.Env = append(process.Env, kv)
		case key == "GODEBUG": // a list: the others' settings stay
			process.Env[i] += "," + value
		default:
			continue
		}
		varied = append(varied, kv)
	}
	if b.Init { // a package: [init, binary, -test.paniconexit0, -test.v=test2json, the user's flags]
		process.Args = slices.Insert(slices.Clone(process.Args), ownArgs, v.Flags...)
		varied = append(varied, v.Flags...)
	}
	spec.Process = &process
	return b.with(&spec, varied)
}

// WithNoNewPrivileges returns the bundle with the process's no_new_privs bit set or not.
func (b *Bundle) WithNoNewPrivileges(on bool) *Bundle {
	spec, process := *b.Spec, *b.Spec.Process
	process.NoNewPrivileges = on
	spec.Process = &process
	return b.with(&spec, b.Varied)
}

func (b *Bundle) with(spec *specs.Spec, varied []string) *Bundle {
	other := *b
	other.Spec, other.Varied = spec, varied
	return &other
}

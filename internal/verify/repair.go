package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/bundle"
	"github.com/seccompgen/seccompgen/internal/scmp"
	"github.com/seccompgen/seccompgen/profile"
)

// quiet is how many probes in a row must show nothing new before a round verifies for good.
const quiet = 2

// RepairOptions bound a repair.
type RepairOptions struct {
	Allow    []string // calls that may be added although they are dangerous
	Rounds   int      // most rounds of probing and verifying
	Progress func(string)
}

// Repair is what a repair did.
type Repair struct {
	Rounds  int               `json:"rounds"`
	Probes  int               `json:"probes"` // runs under SCMP_ACT_LOG
	Added   []Addition        `json:"added"`
	Refused []profile.Missing `json:"refused"` // denied and not added: dangerous, or impossible to add
}

// Addition is an entry that was added, and in which round.
type Addition struct {
	Round int `json:"round"`
	profile.Entry
}

// repairer holds a profile that grows.
type repairer struct {
	p     *specs.LinuxSeccomp
	o     RepairOptions
	done  *Repair
	round int
}

// errStopped says that a call was denied that may not be added.
var errStopped = errors.New("a denied call was not added")

// RepairProfile adds to the profile what it denies, until it verifies. It returns the last verification; what the repair
// did stands in its Repair. A round has two parts, and both add only what the profile denied:
//
// Probes run the bundle under the very profile with SCMP_ACT_LOG for its default action, so that one run shows all calls
// that come to the default action, and not only those up to the first one that ends the program. Entries that answer
// with an errno keep acting, and calls that may not be added unasked are denied for real. A call with conditions is
// judged there only where the recorder kept the arguments that they ask for.
//
// Then the profile as it is gets verified, and what is denied is added with the evidence of its denial.
func RepairProfile(ctx context.Context, s Runner, b *bundle.Bundle, p *specs.LinuxSeccomp, o Options, ro RepairOptions) (*specs.LinuxSeccomp, *Report, error) {
	if err := Check(p); err != nil {
		return nil, nil, err
	}
	for _, name := range ro.Allow {
		if !slices.ContainsFunc(profile.ABIs(), func(abi specs.Arch) bool { _, ok := profile.Number(abi, name); return ok }) {
			return nil, nil, fmt.Errorf("--allow %s: no system call has that name", name)
		}
	}
	o.allow = ro.Allow
	if o.Recorded == nil {
		var err error
		if o.Recorded, err = o.control(ctx, s, 0, b); err != nil {
			return nil, nil, err
		}
	}
	x := &repairer{p: p, o: ro, done: &Repair{Added: []Addition{}, Refused: []profile.Missing{}}}
	var r *Report
	for x.round = 1; x.round <= ro.Rounds; x.round++ {
		x.done.Rounds = x.round
		err := x.probe(ctx, s, b, &o)
		if err == nil {
			if r, err = Verify(ctx, s, b, x.p, o); err != nil {
				return nil, nil, err
			}
			r.Repair = x.done
			if len(r.Denials) == 0 {
				return x.p, r, nil
			}
			ro.Progress(fmt.Sprintf("round %d: %s", x.round, r.Reason))
			err = x.add(r.missing(x.round))
		}
		if errors.Is(err, errStopped) {
			return x.p, x.stopped(r, b), nil
		}
		if err != nil {
			return nil, nil, err
		}
	}
	r.Reason = fmt.Sprintf("still denied after %d rounds: %s", ro.Rounds, r.Reason)
	return x.p, r, nil
}

// probe runs the bundle in every setting until nothing more comes to the profile's default action.
func (x *repairer) probe(ctx context.Context, s Runner, b *bundle.Bundle, o *Options) error {
	for i := range o.Settings {
		for calm, run := 0, 0; calm < quiet; run++ {
			rec, err := o.run(ctx, s, run*len(o.Settings)+i, b, probing(x.p), true)
			if err != nil {
				return fmt.Errorf("probe with SCMP_ACT_LOG for the default action: %w", err)
			}
			x.done.Probes++
			before := len(x.done.Added)
			if err := x.add(refused(x.p, rec, x.round)); err != nil {
				return err
			}
			if calm++; len(x.done.Added) > before {
				calm = 0
			}
		}
	}
	return nil
}

// probing returns the profile with its default action softened to SCMP_ACT_LOG, on all ABIs. Nothing dangerous is let
// through by that.
func probing(p *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	soft := *p
	soft.DefaultAction, soft.DefaultErrnoRet = specs.ActLog, nil
	soft.Architectures = profile.NativeABIs()
	soft.Syscalls = slices.Clone(p.Syscalls)
	r := profile.Resolve(p)
	if r.Default.Action == specs.ActAllow || r.Default.Action == specs.ActLog {
		return &soft
	}
	eperm := uint(unix.EPERM)
	closed := specs.LinuxSyscall{Action: specs.ActErrno, ErrnoRet: &eperm}
	for _, name := range profile.AskFirstCalls() {
		if len(r.Rules(name)) == 0 {
			closed.Names = append(closed.Names, name)
		}
	}
	soft.Syscalls = append(soft.Syscalls, closed)
	return &soft
}

// refused returns what a probe was denied, and what came to the default action of the profile.
func refused(p *specs.LinuxSeccomp, rec *profile.Recording, round int) []profile.Missing {
	r := profile.Resolve(p, native())
	var all []profile.Missing
	for _, c := range rec.Syscalls {
		m := profile.Missing{ABI: c.ABI, Nr: c.Nr, Name: c.Name, Reason: profile.Reason{Kind: profile.KindRepair}}
		if len(c.Callers) > 0 {
			m.Reason.Caller = c.Callers[0].String()
		}
		switch {
		case c.Denied != nil && (c.Denied.Own || rec.Unsure()):
			continue
		case c.Denied != nil:
			m.Args = c.Denied.Args
			m.Reason.Text = fmt.Sprintf("denied in round %d (%s phase), %s", round, c.Phase, outcome(c.Denied.Action, c.Denied.Errno))
		case r.Refuses(c.ABI, c.Nr):
			m.Reason.Text = fmt.Sprintf("came to the default action (%s, LOG in its place) in round %d, %s phase", p.DefaultAction, round, c.Phase)
		default:
			for _, args := range r.RefusesArguments(c) {
				m.Args = args
				m.Reason.Text = fmt.Sprintf("came to the default action with these arguments (%s, LOG in its place) in round %d, %s phase", p.DefaultAction, round, c.Phase)
				all = append(all, m)
			}
			continue
		}
		all = append(all, m)
	}
	for _, u := range rec.Unknown {
		all = append(all, profile.Missing{ABI: u.ABI, Nr: u.Nr, Reason: profile.Reason{Kind: profile.KindRepair, Text: fmt.Sprintf("came to the profile's default action in round %d", round)}})
	}
	return all
}

func native() specs.Arch { return profile.NativeABIs()[0] }

func outcome(action profile.Outcome, errno uint32) string {
	if action == profile.OutcomeErrno {
		return "answered with " + profile.ErrnoName(uint(errno))
	}
	return map[profile.Outcome]string{profile.OutcomeTrap: "SIGSYS", profile.OutcomeKill: "killed"}[action]
}

// missing returns the denials of a verification as what has to be added.
func (r *Report) missing(round int) []profile.Missing {
	var all []profile.Missing
	for _, d := range r.Denials {
		caller := d.Caller
		if caller == "" {
			caller = d.Process
		}
		if d.Test != "" {
			caller += " <- " + d.Test
		}
		all = append(all, profile.Missing{ABI: d.ABI, Nr: d.Nr, Name: d.Name, Args: d.Args, Reason: profile.Reason{
			Kind: profile.KindRepair, Caller: caller,
			Text: fmt.Sprintf("denied in run %d of round %d (%s phase), %s", d.Run, round, d.Phase, outcome(d.Action, d.Errno)),
		}})
	}
	return all
}

// add puts denied calls into the profile.
func (x *repairer) add(missing []profile.Missing) error {
	var added int
	for _, m := range missing {
		if why := profile.AskFirst(m.Name); why != "" && !slices.Contains(x.o.Allow, m.Name) {
			m.Reason.Text += "; dangerous: " + why
			x.done.Refused = append(x.done.Refused, m)
			continue
		}
		p, entry, err := profile.Add(x.p, m)
		if err == nil && len(entry.Args) > 0 {
			err = compiles(p)
		}
		if err == nil {
			err = scmp.CheckNames(p)
		}
		if errors.Is(err, profile.ErrNoRepair) || errors.Is(err, scmp.ErrUnknownName) {
			m.Reason.Text += "; " + err.Error()
			x.done.Refused = append(x.done.Refused, m)
			continue
		}
		if err != nil {
			return err
		}
		if same(x.p, p) { // the same call in another phase, or with another answer
			continue
		}
		x.p = p
		x.done.Added = append(x.done.Added, Addition{x.round, entry})
		added++
	}
	if added > 0 {
		x.o.Progress(fmt.Sprintf("round %d: added %d", x.round, added))
	}
	if len(x.done.Refused) > 0 {
		return errStopped
	}
	return nil
}

func same(a, b *specs.LinuxSeccomp) bool {
	x, err1 := profile.Encode(a)
	y, err2 := profile.Encode(b)
	return err1 == nil && err2 == nil && slices.Equal(x, y)
}

// compiles makes sure that libseccomp makes of the profile what it says.
func compiles(p *specs.LinuxSeccomp) error {
	wrong, err := scmp.Check(p, false)
	if err == nil && len(wrong) > 0 {
		err = fmt.Errorf("with its arguments it %w: libseccomp %s compiles the profile to something else: %s", profile.ErrNoRepair, scmp.Version(), wrong[0])
	}
	return err
}

// stopped is the verdict on a repair that met a call that it may not add.
func (x *repairer) stopped(r *Report, b *bundle.Bundle) *Report {
	if r == nil { // no verification yet
		r = newReport(x.p, b)
	}
	m := x.done.Refused[0]
	r.Verdict, r.Repair = Fail, x.done
	name := m.Name
	if name == "" {
		name = fmt.Sprintf("call number %d", m.Nr)
	}
	r.Reason = name + " was denied and not added"
	if why := profile.AskFirst(m.Name); why != "" {
		r.Reason += fmt.Sprintf(": it %s: give --allow %s if the workload shall have it", why, m.Name)
	} else {
		r.Reason += ": " + m.Reason.Text
	}
	return r
}

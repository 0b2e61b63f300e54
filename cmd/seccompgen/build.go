package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/internal/docker"
	"github.com/seccompgen/seccompgen/internal/gobin"
	"github.com/seccompgen/seccompgen/internal/programs"
	"github.com/seccompgen/seccompgen/internal/scmp"
	"github.com/seccompgen/seccompgen/profile"
)

func buildCommand() *cli.Command {
	return &cli.Command{
		Name:      "build",
		Usage:     "reduce recordings to a minimal profile, and explain every entry of it",
		ArgsUsage: "[RECORDING...]",
		Description: `Calls whose arguments decide what they open, such as socket, clone and ioctl, are
allowed with the arguments that were seen. clone3, whose flags no filter sees, is
answered with ENOSYS, so that callers fall back on clone. What is wider than Docker's
default profile is named on standard error, as is what is not known of the programs
that ran.

A profile is made for the runtime and for the --no-new-privileges that were recorded:
give recordings under each that is to be used, or --for. --arch and --kernel add what
the same program calls elsewhere, and nothing else.

--policy reachable --binary FILE allows all that the program's machine code can call, but
for dangerous calls that no run made. It needs no recording, and then not root either:
what the OCI runtime calls comes from measurements.

The formats are written to profile.json unless -o is given; spo to
seccompprofile.yaml, pod to pod.yaml, artifact to profile.artifact/, an OCI image
layout. What a format cannot say is an error. The artifact's digest depends on the
profile, its name and the environment variable SOURCE_DATE_EPOCH. --push takes the
credentials that docker login keeps.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "o", Value: "profile.json", Usage: "write the profile to `FILE`; - is standard output; with --format artifact to the directory"},
			&cli.StringFlag{Name: "why", Usage: "write the reasons to `FILE`; - is standard output"},
			&cli.StringFlag{Name: "format", Value: "oci", Usage: "write `FORMAT`: oci (runtime-spec), docker, podman, spo, pod or artifact"},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the SeccompProfile, the pod's profile or the artifact (default: the recorded package's)"},
			&cli.StringFlag{Name: "push", Usage: "with --format artifact: push it to `REFERENCE` in a registry"},
			&cli.StringFlag{Name: "policy", Value: "robust", Usage: "build by `POLICY`: exact is what was seen, robust adds what one run cannot show, reachable what the machine code of --binary can call"},
			&cli.StringFlag{Name: "phases", Value: "oci-runtime,workload,exec", Usage: "take the calls of these `PHASES` only"},
			&cli.StringFlag{Name: "args", Value: "auto", Usage: "`HOW` to treat arguments: auto allows some calls with those that were seen only, off with any"},
			&cli.StringFlag{Name: "deny", Value: "errno", Usage: "answer other calls with `ACTION`: errno, kill or log"},
			&cli.StringFlag{Name: "arch", Usage: "list these `ARCHITECTURES` too, separated by commas (amd64, 386, arm64, arm or SCMP_ARCH_...), with what the same program calls there"},
			&cli.StringFlag{Name: "kernel", Usage: "allow what the same program calls on these `KERNELS`, such as 4.19..6.18"},
			&cli.StringFlag{Name: "libseccomp", Usage: "name what this `VERSION` of libseccomp does not know (default: this host's)"},
			&cli.StringFlag{Name: "for", Usage: "add what these `RUNTIMES` need to start a container, such as runc@1.1,crun (default: the runtime recorded)"},
			&cli.BoolFlag{Name: "no-new-privileges", Usage: "with --for: containers will set no_new_privs (allowPrivilegeEscalation: false), and runtimes then need less"},
			&cli.StringSliceFlag{Name: "binary", Usage: "analyze the Go program in `FILE`: one that ran and could not be analyzed then, or else one more that will run; can be repeated"},
			&cli.StringFlag{Name: "allow", Usage: "with --policy reachable: allow these dangerous `CALLS` though no run made them, separated by commas"},
			&cli.BoolFlag{Name: "allow-incomplete", Usage: "build from recordings that say that evidence is missing, and of programs whose analysis does"},
		},
		Action: build,
	}
}

// buildOptions reads the flags.
func buildOptions(c *cli.Context) (profile.BuildOptions, error) {
	o := profile.BuildOptions{Policy: profile.Policy(c.String("policy")), Deny: c.String("deny"), AllowIncomplete: c.Bool("allow-incomplete"), NoNewPrivileges: c.Bool("no-new-privileges")}
	switch c.String("args") {
	case "auto":
	case "off":
		o.AnyArguments = true
	default:
		return o, fmt.Errorf("--args %q is not one of auto, off", c.String("args"))
	}
	if c.IsSet("allow") {
		o.Allow = strings.Split(c.String("allow"), ",")
	}
	if c.IsSet("for") {
		o.For = strings.Split(c.String("for"), ",")
	}
	for phase := range strings.SplitSeq(c.String("phases"), ",") {
		o.Phases = append(o.Phases, profile.Phase(phase))
	}
	if c.IsSet("arch") {
		for arch := range strings.SplitSeq(c.String("arch"), ",") {
			a, err := profile.ParseArch(arch)
			if err != nil {
				return o, err
			}
			o.Arch = append(o.Arch, a)
		}
	}
	if c.IsSet("kernel") {
		var err error
		if o.Kernels, err = profile.ParseKernels(c.String("kernel")); err != nil {
			return o, err
		}
	}
	return o, nil
}

func build(c *cli.Context) error {
	if err := noRest(c); err != nil {
		return err
	}
	if !c.Args().Present() && c.String("policy") != string(profile.PolicyReachable) {
		return seeHelp(c.Command, errors.New("no recording"))
	}
	if err := checkFormat(c); err != nil {
		return err
	}
	o, err := buildOptions(c)
	if err != nil {
		return err
	}
	if c.IsSet("libseccomp") { // before anything is written
		if _, _, err := profile.UnknownTo(c.String("libseccomp"), &specs.LinuxSeccomp{}); err != nil {
			return err
		}
	}
	recordings, err := readRecordings(c.Args().Slice())
	if err != nil {
		return err
	}
	for _, path := range c.StringSlice("binary") {
		b, err := analyze(path)
		if err != nil {
			return err
		}
		profile.AddAnalysis(recordings, b.Program)
		o.Binaries = append(o.Binaries, b)
	}
	if len(recordings) == 0 && o.For == nil {
		if o.For, err = profile.MeasuredRuntimes(); err != nil {
			return err
		}
	}
	p, why, err := profile.Build(recordings, o)
	if err != nil {
		return err
	}
	for _, stub := range []bool{false, true} {
		wrong, err := scmp.Check(p, stub)
		if err != nil {
			return err
		}
		if len(wrong) > 0 {
			return hinted{fmt.Errorf("this host's libseccomp %s makes another filter of the profile: %s", scmp.Version(), wrong[0]), "build with --args off"}
		}
	}
	other, err := docker.Default(p.Architectures, docker.Common(recordings))
	if err != nil {
		return err
	}
	wider := why.NameWider(other, "Docker's default profile for the container's capabilities")
	if err := writeProfile(c, p, why, nameOf(recordings, o.Binaries)); err != nil {
		return err
	}
	if c.IsSet("why") {
		if err := writeOutput(c.App.Writer, c.String("why"), why.Write); err != nil {
			return err
		}
	}
	if o.Policy != profile.PolicyExact {
		reportUnanalyzed(c.App.ErrWriter, recordings)
	}
	if o.Policy == profile.PolicyReachable {
		reportReachable(c.App.ErrWriter, recordings, why, o)
	}
	kinds := countKinds(why)
	say(c.App.ErrWriter, "%s allowed (%d seen in the workload, %d more by the runtime, %d more by the policy %s, %d more for other ABIs and kernels), %d of them with some arguments only; %d answered with ENOSYS",
		plural(len(profile.Allowed(p)), "call"), kinds[profile.KindObserved], kinds[profile.KindOCIRuntime], kinds[profile.KindGoRuntime]+kinds[profile.KindImplicit]+kinds[profile.KindReachable], c.String("policy"), kinds[profile.KindPortability],
		kinds[profile.KindArgument], kinds[profile.KindErrno])
	for _, e := range wider {
		warn(c.App.ErrWriter, "%s on %s is %s", e.Name, abiList([]specs.Arch{e.ABI}), e.Reasons[len(e.Reasons)-1].Text)
	}
	for _, e := range why.Entries {
		for _, r := range e.Reasons {
			if r.Kind == profile.KindDangerous {
				warn(c.App.ErrWriter, "%s is allowed on %s, which is dangerous: %s (%s)", e.Name, abiList([]specs.Arch{e.ABI}), r.Text, r.Caller)
			}
		}
		if e.Name == "clone3" && e.Action == specs.ActErrno && e.Reasons[0].Caller != "" {
			warn(c.App.ErrWriter, "clone3 was made on %s, by %s, and is answered with ENOSYS, as by Docker's default profile: if that has no fallback on clone, verify fails, and verify --repair FILE --allow clone3 allows it",
				abiList([]specs.Arch{e.ABI}), e.Reasons[0].Caller)
		}
	}
	if n := len(why.Untested); n > 0 {
		var by []string
		for _, u := range why.Untested {
			by = append(by, u.Programs...)
		}
		slices.Sort(by)
		say(c.App.ErrWriter, "%s reachable and untested: %s can make them, no run did, the profile denies them (--why lists them)", plural(n, "call"), few(slices.Compact(by)))
	}
	if err := reportUnknown(c, p); err != nil {
		return err
	}
	saved, unmeasured := profile.Savings(recordings, why, o)
	if len(saved) > 0 {
		say(c.App.ErrWriter, "allowPrivilegeEscalation: false (noNewPrivileges) would save %s that only the runtime's start needs: %s", plural(len(saved), "call"), strings.Join(saved, ", "))
	}
	for _, name := range unmeasured {
		say(c.App.ErrWriter, "what noNewPrivileges would save under %s was not measured: make baselines does", name)
	}
	for _, r := range recordings {
		if r.Boundary == profile.BoundaryExecve && slices.Contains(o.Phases, profile.PhaseRuntime) {
			calls, err := profile.BaselineCalls(r.Runtime, r.NoNewPrivileges)
			if err != nil {
				return err
			}
			say(c.App.ErrWriter, "recording %s was made without a filter: %s of %s %s come from measurement, not from these runs", r.ID, plural(len(calls), "call"), r.Runtime.Name, r.Runtime.Version)
		}
		if s := profile.Saturate(r); s.Runs > 1 {
			say(c.App.ErrWriter, "recording %s, %s: %s", r.ID, plural(len(r.Runs), "run"), s)
		}
		for _, run := range failedRuns(r) {
			warn(c.App.ErrWriter, "recording %s: %s exited with %d: calls that come after its failure are not in the profile", r.ID, cmp.Or(run.Package, "the workload"), run.Exit)
		}
	}
	for _, u := range why.Unknown {
		warn(c.App.ErrWriter, "number %d of %s was called and has no name: the profile denies it", u.Nr, u.ABI)
	}
	return nil
}

// reportUnanalyzed says what is not known of the programs that ran, and what the profile allows for that.
func reportUnanalyzed(to io.Writer, recordings []*profile.Recording) {
	said := map[string]bool{}
	for _, r := range recordings {
		for _, p := range r.Unanalyzed() {
			why := cmp.Or(p.Unread, "the recording holds no analysis of it")
			line := fmt.Sprintf("what Go's runtime in %s calls is not known: %s", p, why)
			if p.Path == "" {
				line = fmt.Sprintf("which programs ran is not known: %s", why)
			}
			if said[line] {
				continue
			}
			if said[line] = true; len(said) <= maxSaid {
				warn(to, "%s", line)
			}
		}
	}
	switch n := len(said); {
	case n > maxSaid:
		warn(to, "and of %s more; for all of them the profile allows whatever Go's runtime is known to call", plural(n-maxSaid, "program"))
	case n > 0:
		say(to, "the profile allows whatever Go's runtime is known to call; --binary FILE analyzes a program")
	}
}

// maxSaid is how many programs are named on standard error; the recording lists all.
const maxSaid = 10

// analyze looks at a program that the user has.
func analyze(path string) (profile.Binary, error) {
	f, err := os.Open(path)
	if err != nil {
		return profile.Binary{}, fmt.Errorf("analyze: %w", err)
	}
	defer f.Close()
	b, err := programs.Inspect(f)
	if errors.Is(err, gobin.ErrNotGo) {
		return b, fmt.Errorf("%s is not a Go program", path)
	}
	if err != nil {
		return b, fmt.Errorf("analyze %s: %w", path, err)
	}
	b.Path = path
	return b, nil
}

// readRecordings reads many files at once: decoding them is nearly all of what build does.
func readRecordings(paths []string) ([]*profile.Recording, error) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // and what it throws away is not worth the time
	recordings := make([]*profile.Recording, len(paths))
	errs := make([]error, len(paths))
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	var group sync.WaitGroup
	for i, path := range paths {
		slots <- struct{}{}
		group.Go(func() {
			recordings[i], errs[i] = readFile(path, profile.ReadRecording)
			<-slots
		})
	}
	group.Wait()
	return recordings, cmp.Or(errs...)
}

// countKinds counts the calls by the most telling kind of reason that any ABI has for them, and those with conditions as
// kind argument.
func countKinds(why *profile.Why) map[profile.Kind]int {
	order := []profile.Kind{profile.KindObserved, profile.KindOCIRuntime, profile.KindGoRuntime, profile.KindImplicit, profile.KindReachable, profile.KindPortability, profile.KindErrno}
	best, conditions := map[string]int{}, map[string]bool{}
	for _, e := range why.Entries {
		if len(e.Args) > 0 {
			conditions[e.Name] = true
		}
		for _, r := range e.Reasons {
			rank := slices.Index(order, r.Kind)
			if old, ok := best[e.Name]; rank >= 0 && (!ok || rank < old) {
				best[e.Name] = rank
			}
		}
	}
	kinds := map[profile.Kind]int{profile.KindArgument: len(conditions)}
	for _, rank := range best {
		kinds[order[rank]]++
	}
	return kinds
}

// reportUnknown names what runtimes would leave out of the profile, since their libseccomp does not know it.
func reportUnknown(c *cli.Context, p *specs.LinuxSeccomp) error {
	unknown := func(whose string, allowed, others []string) {
		if len(allowed) > 0 {
			warn(c.App.ErrWriter, "%s does not know %s: runtimes that use it deny what the profile allows", whose, strings.Join(allowed, ", "))
		}
		if len(others) > 0 {
			warn(c.App.ErrWriter, "%s does not know %s: runtimes that use it give the profile's default answer, not ENOSYS", whose, strings.Join(others, ", "))
		}
	}
	if c.IsSet("libseccomp") {
		version := c.String("libseccomp")
		allowed, others, err := profile.UnknownTo(version, p)
		if err != nil {
			return err
		}
		unknown("libseccomp "+version, allowed, others)
		return nil
	}
	// Of this host's, which need not be the target's, only what breaks the workload is worth a line.
	allowed, _ := scmp.UnknownNames(p)
	unknown("this host's libseccomp "+scmp.Version(), allowed, nil)
	if !c.IsSet("for") {
		return nil
	}
	for name := range strings.SplitSeq(c.String("for"), ",") {
		if version, release := profile.ReleasedWith(name); version != "" {
			allowed, others, err := profile.UnknownTo(version, p)
			if err != nil {
				return err
			}
			unknown("libseccomp "+version+", with which "+release+" was released,", allowed, others)
		}
	}
	return nil
}

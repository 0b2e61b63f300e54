package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/internal/scmp"
	"github.com/seccompgen/seccompgen/profile"
)

func buildCommand() *cli.Command {
	return &cli.Command{
		Name:      "build",
		Usage:     "reduce recordings to a minimal profile, and explain every entry of it",
		ArgsUsage: "RECORDING...",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "o", Value: "profile.json", Usage: "write the profile to `FILE`; - is standard output; with --format artifact to the directory"},
			&cli.StringFlag{Name: "why", Usage: "write the reasons to `FILE`; - is standard output"},
			&cli.StringFlag{Name: "format", Value: "oci", Usage: "`oci` (runtime-spec), docker, podman, spo, pod or artifact"},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the SeccompProfile, the pod's profile or the artifact (default: the recorded package's)"},
			&cli.StringFlag{Name: "push", Usage: "with --format artifact: push it to `REFERENCE` in a registry"},
			&cli.StringFlag{Name: "policy", Value: "robust", Usage: "`robust` or exact"},
			&cli.StringFlag{Name: "phases", Value: "runtime,workload,exec", Usage: "take the calls of these `PHASES` only"},
			&cli.StringFlag{Name: "args", Value: "auto", Usage: "`auto` allows some calls with the arguments that were seen only; off with any"},
			&cli.StringFlag{Name: "deny", Value: "errno", Usage: "answer other calls with `errno`, kill or log"},
			&cli.StringFlag{Name: "arch", Usage: "list these `ARCHITECTURES` too, such as SCMP_ARCH_X86"},
			&cli.StringFlag{Name: "for", Usage: "add what these `RUNTIMES` need to start a container, such as runc@1.1,crun (default: the runtime recorded)"},
			&cli.BoolFlag{Name: "no-new-privileges", Usage: "with --for: containers will set no_new_privs (allowPrivilegeEscalation: false), and runtimes then need less"},
			&cli.StringFlag{Name: "binary", Usage: "the workload's Go binary in `FILE`, for recordings that hold no analysis of it"},
			&cli.BoolFlag{Name: "allow-incomplete", Usage: "build from recordings that say that evidence is missing"},
		},
		Action: build,
	}
}

func build(c *cli.Context) error {
	if err := noRest(c); err != nil {
		return err
	}
	if !c.Args().Present() {
		return fmt.Errorf("no recording: see seccompgen build --help")
	}
	if err := checkFormat(c); err != nil {
		return err
	}
	o := profile.BuildOptions{Policy: profile.Policy(c.String("policy")), Deny: c.String("deny"), AllowIncomplete: c.Bool("allow-incomplete"), NoNewPrivileges: c.Bool("no-new-privileges")}
	switch c.String("args") {
	case "auto":
	case "off":
		o.AnyArguments = true
	default:
		return fmt.Errorf("--args %q is not one of auto, off", c.String("args"))
	}
	if c.IsSet("for") {
		o.For = strings.Split(c.String("for"), ",")
	}
	for phase := range strings.SplitSeq(c.String("phases"), ",") {
		o.Phases = append(o.Phases, profile.Phase(phase))
	}
	if c.IsSet("arch") {
		for arch := range strings.SplitSeq(c.String("arch"), ",") {
			o.Arch = append(o.Arch, specs.Arch(arch))
		}
	}
	var recordings []*profile.Recording
	for _, path := range c.Args().Slice() {
		r, err := readFile(path, profile.ReadRecording)
		if err != nil {
			return err
		}
		recordings = append(recordings, r)
	}
	if c.IsSet("binary") {
		static, err := analyze(c.String("binary"))
		if err != nil {
			return err
		}
		if static == nil {
			return fmt.Errorf("%s is not a Go binary that can be analyzed", c.String("binary"))
		}
		for _, r := range recordings {
			r.Static = static
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
			return fmt.Errorf("this host's libseccomp %s makes another filter of the profile: %s: build with --args off", scmp.Version(), wrong[0])
		}
	}
	if err := writeProfile(c, p, why, recordings[0]); err != nil {
		return err
	}
	if c.IsSet("why") {
		if err := writeOutput(c.App.Writer, c.String("why"), why.Write); err != nil {
			return err
		}
	}
	kinds := map[string]int{}
	last := profile.Entry{}
	for _, e := range why.Entries { // those of one call that differ in arguments follow each other
		if e.ABI != last.ABI || e.Name != last.Name {
			kinds[e.Reasons[0].Kind]++
			kinds["argument"] += min(len(e.Args), 1)
		}
		last = e
	}
	fmt.Fprintf(c.App.ErrWriter, "seccompgen: %s allowed (%d seen in the workload, %d more by the runtime, %d more by the policy %s), %d of them with some arguments only; %d answered with ENOSYS\n",
		plural(len(profile.Allowed(p)), "call"), kinds["observed"], kinds["runtime"], kinds["closure"], c.String("policy"), kinds["argument"], kinds["errno"])
	if n := len(why.Untested); n > 0 {
		fmt.Fprintf(c.App.ErrWriter, "seccompgen: %s reachable and untested: the binary can make them, no run did, the profile denies them (--why lists them)\n", plural(n, "call"))
	}
	if unknown, _ := scmp.UnknownNames(p); len(unknown) > 0 {
		fmt.Fprintf(c.App.ErrWriter, "seccompgen: this host's libseccomp %s does not know %s: runtimes here would deny what the profile allows\n", scmp.Version(), strings.Join(unknown, ", "))
	}
	for _, r := range recordings {
		if i := slices.IndexFunc(r.Runs, func(run profile.Run) bool { return run.Exit > 0 }); i >= 0 {
			fmt.Fprintf(c.App.ErrWriter, "seccompgen: recording %s: the workload exited with %d: calls that come after its failure are not in the profile\n", r.ID, r.Runs[i].Exit)
		}
	}
	for _, u := range why.Unknown {
		fmt.Fprintf(c.App.ErrWriter, "seccompgen: number %d of %s was called and has no name: the profile denies it\n", u.Nr, u.ABI)
	}
	return nil
}

// readFile reads a file with one of profile's readers, and names it in the error.
func readFile[T any](path string, read func(io.Reader) (*T, error)) (*T, error) {
	f, err := openInput(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	v, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return v, nil
}

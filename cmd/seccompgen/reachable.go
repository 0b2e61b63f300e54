package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/profile"
)

// reportReachable says what a profile of the policy reachable does not allow, and what it cannot know.
func reportReachable(to io.Writer, recordings []*profile.Recording, why *profile.Why, o profile.BuildOptions) {
	if len(recordings) == 0 && slices.Contains(o.Phases, profile.PhaseRuntime) {
		say(to, "nothing was recorded: what the OCI runtime calls under the filter comes from measurements of %s", strings.Join(o.For, ", "))
		for _, e := range why.Entries {
			if i := slices.IndexFunc(e.Reasons, func(r profile.Reason) bool {
				return r.Kind == profile.KindOCIRuntime && strings.HasSuffix(r.Text, "on another ABI")
			}); i >= 0 {
				warn(to, "on %s nothing was measured: the OCI runtime is taken to make the same calls as on X86_64", abiList([]specs.Arch{e.ABI}))
				break
			}
		}
	}
	var left []string
	for _, u := range why.Untested {
		if call := fmt.Sprintf("%s (%s)", u.Name, few(u.Functions)); u.Dangerous != "" && !slices.Contains(left, call) {
			left = append(left, call)
		}
	}
	if len(left) > 0 {
		warn(to, "denied, since they are dangerous and no run made them: %s; every Go program that can start a process has those of syscall.SysProcAttr in its code; --allow CALL,... allows them", strings.Join(left, ", "))
	}
	for _, b := range o.Binaries {
		if f := b.Incomplete(); len(f) > 0 {
			warn(to, "the profile may lack calls of %s, whose numbers could not be told, in %s", b, strings.Join(f, ", "))
		}
		if f := slices.Concat(b.Can("execve"), b.Can("execveat")); len(f) > 0 {
			warn(to, "%s can execute programs, in %s: what these call is in the profile only if they were recorded, or given by --binary", b, few(f))
		}
		switch {
		case b.Interpreter != "" && b.C:
			warn(to, "%s is loaded by %s, and has code of C's: what that and C libraries call is in the profile only if it was recorded", b, b.Interpreter)
		case b.Interpreter != "":
			warn(to, "%s is loaded by %s: what that calls is in the profile only if it was recorded", b, b.Interpreter)
		case b.C:
			warn(to, "%s has code of C's: what it calls is in the profile only as far as the symbol table names its functions, or if it was recorded", b)
		}
		if b.Plugins {
			warn(to, "%s can load plugins: what these call is in the profile only if they were recorded", b)
		}
	}
}

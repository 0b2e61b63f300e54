package verify

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seccompgen/seccompgen/profile"
)

// OfPackage is the outcome of one of several packages.
type OfPackage struct {
	Package string
	*Report
}

// Join makes one report of those of several packages. It fails if one of them does; it passes if all do and all were built.
// Tests are named with their package.
func Join(parts []OfPackage, unbuilt []string) (*Report, error) {
	if len(parts) == 0 {
		return nil, errors.New("join: no reports")
	}
	parts = slices.Clone(parts)
	slices.SortFunc(parts, func(a, b OfPackage) int { return cmp.Compare(a.Package, b.Package) })
	all := &Report{Version: ReportVersion, Denials: []Denial{}, Tests: []Test{}, Runs: []Run{}, Profile: parts[0].Profile}
	reasons := map[Verdict][]string{}
	for _, part := range parts {
		before := len(all.Runs)
		for _, run := range part.Runs {
			run.Package = part.Package
			all.Runs = append(all.Runs, run)
		}
		name := func(denials []Denial) (named []Denial) {
			for _, d := range denials {
				d.Run += before
				if d.Test != "" {
					d.Test = profile.TestIn(part.Package, d.Test)
				}
				named = append(named, d)
			}
			return named
		}
		all.Denials, all.Own = append(all.Denials, name(part.Denials)...), append(all.Own, name(part.Own)...)
		for _, t := range part.Tests {
			t.Run += before
			t.Name = profile.TestIn(part.Package, t.Name)
			all.Tests = append(all.Tests, t)
		}
		reasons[part.Verdict] = append(reasons[part.Verdict], part.Package+": "+part.Reason)
	}
	if len(unbuilt) > 0 {
		reasons[Inconclusive] = append(reasons[Inconclusive], "the tests of "+strings.Join(unbuilt, ", ")+" did not build")
	}
	for _, verdict := range []Verdict{Fail, Inconclusive} {
		if why := reasons[verdict]; len(why) > 0 {
			all.Verdict, all.Reason = verdict, strings.Join(why, "; ")
			return all, nil
		}
	}
	all.Verdict = Pass
	all.Reason = fmt.Sprintf("no denials and the same test results in %d of %d runs of %d packages", len(all.Runs), len(all.Runs), len(parts))
	return all, nil
}

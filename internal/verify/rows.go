package verify

import (
	"fmt"
	"strings"

	"github.com/seccompgen/seccompgen/profile"
)

// TestRows returns the tests with another result as people read them: several of one run that have no result, since the program
// ended before they had, are one row, which comes last.
func (r *Report) TestRows() []Test {
	var rows []Test
	missing := map[int][]Test{} // by run
	for _, t := range r.Tests {
		if t.Verified == "" {
			missing[t.Run] = append(missing[t.Run], t)
		} else {
			rows = append(rows, t)
		}
	}
	for run := 1; run <= len(r.Runs); run++ {
		tests := missing[run]
		if len(tests) < 2 {
			rows = append(rows, tests...)
			continue
		}
		name := fmt.Sprintf("%d tests, from %s to %s, since the program ended", len(tests), tests[0].Name, tests[len(tests)-1].Name)
		if in := r.deniedIn(run); in != "" {
			name += ", after a denial in " + in
		}
		rows = append(rows, Test{Run: run, Name: name, Recorded: "a result"})
	}
	return rows
}

// deniedIn returns the test in which the first call of a run was denied, as far as it is known.
func (r *Report) deniedIn(run int) string {
	first := Denial{}
	for _, d := range r.Denials {
		if d.Run == run && d.Test != "" && (first.Test == "" || d.Order < first.Order) {
			first = d
		}
	}
	return first.Test
}

// CallName returns the denied call's name, or its number.
func (d Denial) CallName() string {
	if d.Name == "" {
		return fmt.Sprintf("number %d", d.Nr)
	}
	return d.Name
}

// Answer says how the call was refused: EPERM, SIGSYS, killed.
func (d Denial) Answer() string {
	switch d.Action {
	case profile.OutcomeErrno:
		return profile.ErrnoName(uint(d.Errno))
	case profile.OutcomeTrap:
		return "SIGSYS"
	}
	return "killed"
}

// Arguments prints the registers up to the last that is not zero.
func (d Denial) Arguments() string {
	n := len(d.Args)
	for n > 0 && d.Args[n-1] == 0 {
		n--
	}
	var parts []string
	for _, a := range d.Args[:n] {
		parts = append(parts, fmt.Sprintf("%#x", a))
	}
	return strings.Join(parts, " ")
}

package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/seccompgen/seccompgen/internal/verify"
)

// The part of JUnit's format that all readers agree on.
type (
	suites struct {
		XMLName  xml.Name `xml:"testsuites"`
		Name     string   `xml:"name,attr"`
		Tests    int      `xml:"tests,attr"`
		Failures int      `xml:"failures,attr"`
		Errors   int      `xml:"errors,attr"`
		Suites   []suite  `xml:"testsuite"`
	}
	suite struct {
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Errors   int        `xml:"errors,attr"`
		Time     string     `xml:"time,attr"`
		Cases    []testCase `xml:"testcase"`
	}
	testCase struct {
		Class   string   `xml:"classname,attr"`
		Name    string   `xml:"name,attr"`
		Time    string   `xml:"time,attr"`
		Failure *problem `xml:"failure"`
		Error   *problem `xml:"error"`
	}
	problem struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

func (s *suite) add(class, name, kind, message, text string) {
	c := testCase{Class: class, Name: name, Time: "0"}
	p := &problem{Message: message, Type: kind, Text: text}
	switch kind {
	case "":
	case "inconclusive":
		c.Error = p
		s.Errors++
	default:
		c.Failure = p
		s.Failures++
	}
	s.Cases = append(s.Cases, c)
	s.Tests++
}

// JUnit writes a suite for each run: a case for each denied call and for each test with another result, or one that
// says that there was none; and a last suite with the verdict, which fails or errs exactly if the verdict is no pass.
func (d *Document) JUnit(to io.Writer) error {
	all := suites{Name: strings.TrimSpace("seccomp profile " + d.title())}
	for i, run := range d.Runs {
		of := ""
		if run.Package != "" {
			of = " of " + run.Package
		}
		s := suite{Name: fmt.Sprintf("run %d%s under %s %s", i+1, of, run.Runtime.Name, run.Runtime.Version), Time: fmt.Sprintf("%.3f", run.Seconds)}
		for _, x := range d.Denials {
			if x.Run == i+1 {
				name := fmt.Sprintf("%s (%s, %s)", x.CallName(), abi(x.ABI), x.Answer())
				s.add("denials", name, "denied", fmt.Sprintf("%s was denied %s", x.CallName(), plural(int(x.Count), "time")), denialText(x))
			}
		}
		if len(s.Cases) == 0 {
			s.add("denials", "no call is denied", "", "", "")
		}
		denials := len(s.Cases)
		for _, t := range d.Tests {
			if t.Run == i+1 {
				s.add("tests", t.Name, "changed", fmt.Sprintf("%s, and without the profile %s", orNothing(t.Verified), orNothing(t.Recorded)), "")
			}
		}
		if len(s.Cases) == denials {
			s.add("tests", "same results as without the profile", "", "", "")
		}
		all.Suites = append(all.Suites, s)
	}
	s := suite{Name: "verdict", Time: "0"}
	kind := string(d.Verdict)
	if d.Verdict == verify.Pass {
		kind = ""
	}
	s.add("verdict", "the profile verifies", kind, d.Reason, "")
	all.Suites = append(all.Suites, s)
	for _, s := range all.Suites {
		all.Tests, all.Failures, all.Errors = all.Tests+s.Tests, all.Failures+s.Failures, all.Errors+s.Errors
	}
	data, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return fmt.Errorf("encode JUnit: %w", err)
	}
	_, err = fmt.Fprintf(to, "%s%s\n", xml.Header, data)
	return err
}

func denialText(x verify.Denial) string {
	lines := []string{"arguments: " + x.Arguments(), "phase: " + string(x.Phase), "process: " + x.Process}
	if x.Test != "" {
		lines = append(lines, "test: "+x.Test)
	}
	if len(x.Stack) > 0 {
		lines = append(lines, "stack, innermost first:\n  "+strings.Join(x.Stack, "\n  "))
	}
	return strings.Join(lines, "\n")
}

func orNothing(result string) string {
	if result == "" {
		return "no result"
	}
	return result
}

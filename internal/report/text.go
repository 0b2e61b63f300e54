package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/seccompgen/seccompgen/profile"
)

func percent(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }

// confidence says in a sentence what the recording lets expect.
func confidence(s *profile.Saturation) string {
	if s.All == nil {
		return "The profile rests on one recorded run, which says nothing of the next one: record with --runs or --until-saturated."
	}
	least, most := s.PerRun[0].Calls, 0
	for _, run := range s.PerRun {
		least, most = min(least, run.Calls), max(most, run.Calls)
	}
	each := fmt.Sprint(most)
	if least < most {
		each = fmt.Sprintf("%d to %d", least, most)
	}
	return fmt.Sprintf("%d runs were recorded, of %s distinct calls each. The chance that one more shows a call that a profile of the policy robust would lack is estimated at %s; of any new call, at %s.",
		s.Runs, each, percent(s.Beyond.Chance), percent(s.All.Chance))
}

// most is how many rows of a table a pull request's comment has room for.
const most = 20

// Markdown writes a comment for a pull request.
func (d *Document) Markdown(to io.Writer) error {
	var b bytes.Buffer
	subject := ""
	if t := d.title(); t != "" {
		subject = " of " + code(t)
	}
	fmt.Fprintf(&b, "### seccomp profile%s: %s\n\n%s.\n", subject, d.Verdict, code(d.Reason))
	if d.Docker != nil {
		fmt.Fprintf(&b, "\n%s allowed; Docker's default profile allows %d. It closes %s of those that are well known from attacks, and leaves %d open.\n",
			plural(d.Docker.Allowed, "call"), d.Docker.Other, plural(len(d.Docker.Closed), "call"), len(d.Docker.Open))
	}
	if len(d.Denials) > 0 {
		b.WriteString("\n#### Denials\n\n| call | ABI | arguments | answer | process | caller | test | count |\n|---|---|---|---|---|---|---|---|\n")
		for _, x := range d.Denials[:min(len(d.Denials), most)] {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %d |\n", code(x.CallName()), abi(x.ABI), code(x.Arguments()), x.Answer(), code(x.Process), code(x.Caller), code(x.Test), x.Count)
		}
		more(&b, len(d.Denials))
	}
	if rows := d.TestRows(); len(rows) > 0 {
		b.WriteString("\n#### Tests with another result\n\n| test | without | with the profile |\n|---|---|---|\n")
		for _, t := range rows[:min(len(rows), most)] {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", code(t.Name), code(t.Recorded), code(orNothing(t.Verified)))
		}
		more(&b, len(rows))
	}
	if d.Saturation != nil {
		fmt.Fprintf(&b, "\n%s\n", confidence(d.Saturation))
	}
	if n := len(d.Untested); n > 0 {
		var names []string
		for _, u := range d.Untested {
			names = append(names, code(u.Name))
		}
		fmt.Fprintf(&b, "\n<details><summary>%s reachable and untested: the program can make them, no run did, they are refused</summary>\n\n%s\n\n</details>\n", plural(n, "call"), strings.Join(names, ", "))
	}
	_, err := to.Write(b.Bytes())
	return err
}

func more(b *bytes.Buffer, n int) {
	if n > most {
		fmt.Fprintf(b, "\nand %d more.\n", n-most)
	}
}

// code keeps any text on its line and in its cell as a code span, where Markdown has no meaning: no tags, links or mentions.
func code(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\ufffd"))
	if strings.TrimSpace(text) == "" {
		return "–"
	}
	// A table splits its rows before it looks at code spans, and takes two backslashes for one.
	text = strings.NewReplacer(`\|`, `\ \|`, `|`, `\|`).Replace(text)
	longest, run := 0, 0
	for _, r := range text {
		if r == '`' {
			run++
			longest = max(longest, run)
		} else {
			run = 0
		}
	}
	fence := strings.Repeat("`", longest+1)
	if longest > 0 {
		text = " " + text + " "
	}
	return fence + text + fence
}

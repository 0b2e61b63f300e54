package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/verify"
	"github.com/seccompgen/seccompgen/profile"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"abi": abi, "percent": percent, "confidence": confidence,
	"plural": plural, "join": strings.Join, "inc": func(i int) int { return i + 1 },
	"covered": func(s *Statement) string { return fmt.Sprintf("%d of %d statements covered", s.Covered, s.All) },
	"entry":   entryAnswer,
}).Parse(pageText))

// HTML writes the page: one file, no script, nothing from elsewhere.
func (d *Document) HTML(to io.Writer) error {
	var b bytes.Buffer
	v := view{Document: d, Title: d.title(), HasWhy: d.hasWhy, Closed: groups(d.Docker, true), Open: groups(d.Docker, false), Map: d.heatMap(), Curve: d.curve()}
	if c := d.Docker; c != nil {
		v.Bars = []bar{newBar("this profile", c.Allowed, c), newBar("Docker's default", c.Other, c)}
	}
	if s := d.Saturation; s != nil {
		for _, f := range s.Calls {
			if f.Runs < s.Runs {
				v.Rare = append(v.Rare, f)
			}
		}
	}
	v.Rows = d.TestRows()
	v.MostTests = min(len(v.Rows), mostOnPage)
	if err := page.Execute(&b, v); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	_, err := to.Write(b.Bytes())
	return err
}

// mostOnPage bounds lists that say nothing new after that: where a container does not start, all tests have changed.
const mostOnPage = 200

// view is the document as the page wants it.
type view struct {
	*Document
	Title        string
	HasWhy       bool
	Bars         []bar
	Closed, Open []group
	Map          *heatMap
	Curve        *curve
	Rows         []verify.Test // the tests with another result
	MostTests    int
	Rare         []profile.Frequency // calls that not every run made
}

// bar is a number of calls as a length.
type bar struct {
	Label string
	Calls int
	Width float64 // in percent
}

func newBar(label string, calls int, c *profile.Comparison) bar {
	return bar{label, calls, math.Round(1000*float64(calls)/float64(max(c.Allowed, c.Other, 1))) / 10}
}

// group is the dangerous calls that give an attacker the same.
type group struct {
	Calls []string
	Why   string
}

func groups(c *profile.Comparison, closed bool) []group {
	if c == nil {
		return nil
	}
	list := c.Open
	if closed {
		list = c.Closed
	}
	var all []group
	for _, d := range list {
		name := d.Name
		if closed && d.Limited {
			name += " (for some arguments)"
		}
		if n := len(all); n > 0 && all[n-1].Why == d.Why {
			all[n-1].Calls = append(all[n-1].Calls, name)
		} else {
			all = append(all, group{[]string{name}, d.Why})
		}
	}
	return all
}

// heatMap is the calls by the tests that were the first to make them, in parts that fit on paper.
type heatMap struct {
	Parts   []heatPart
	Outside []string // calls that no test was the first to make
}

type heatPart struct {
	Calls []string
	Rows  []heatRow
}

type heatRow struct {
	Test  string
	Cells []heatCell
}

type heatCell struct {
	Runs  int // 0: not the first in any run
	Level int // 1 to 4, by the share of the runs that made the call
}

// columns is how many calls fit side by side.
const columns = 20

func (d *Document) heatMap() *heatMap {
	if d.Recording == nil {
		return nil
	}
	abis := map[specs.Arch]bool{}
	for _, s := range d.Sightings {
		abis[s.ABI] = true
	}
	label := func(s Sighting) string {
		if len(abis) > 1 {
			return s.Name + " " + abi(s.ABI)
		}
		return s.Name
	}
	var calls []string
	for _, s := range d.Sightings {
		if s.Test != "" {
			calls = append(calls, label(s))
		}
	}
	slices.Sort(calls)
	calls = slices.Compact(calls)
	m := &heatMap{}
	for part := range slices.Chunk(calls, columns) {
		m.Parts = append(m.Parts, heatPart{Calls: part})
	}
	for _, s := range d.Sightings {
		at, inTest := slices.BinarySearch(calls, label(s))
		if s.Test == "" {
			if !inTest {
				m.Outside = append(m.Outside, label(s))
			}
			continue
		}
		part := &m.Parts[at/columns]
		if n := len(part.Rows); n == 0 || part.Rows[n-1].Test != s.Test {
			part.Rows = append(part.Rows, heatRow{s.Test, make([]heatCell, len(part.Calls))})
		}
		part.Rows[len(part.Rows)-1].Cells[at%columns] = heatCell{s.Runs, 1 + min(3, 4*s.Runs/(d.Saturation.Runs+1))}
	}
	return m
}

// curve is the saturation curve, drawn.
type curve struct {
	Line           string // of points
	Last           point
	Total          float64 // height of the line of the estimated total
	Dashed         bool    // the total is near enough to be drawn
	TotalText      string
	Right, Bottom  float64
	Left, Top      float64
	Width, Height  float64
	Across, Upward []tick
}

type (
	point struct{ X, Y float64 }
	tick  struct {
		At   float64
		Text string
	}
)

func (d *Document) curve() *curve {
	if d.Saturation == nil || d.Saturation.All == nil {
		return nil
	}
	e := d.Saturation.All
	c := &curve{Width: 640, Height: 260, Left: 48, Top: 16, Right: 624, Bottom: 216, TotalText: fmt.Sprintf("%.1f", e.Total)}
	c.Dashed = e.Total <= 2*float64(e.Calls)
	low, high := math.Floor(e.Curve[0])-1, float64(e.Calls)+1
	if c.Dashed {
		high = math.Ceil(e.Total) + 1
	}
	step := math.Max(1, math.Ceil((high-low)/5))
	low = math.Max(0, math.Floor(low/step)*step)
	high = low + step*math.Ceil((high-low)/step)
	x := func(run float64) float64 { return tenth(c.Left + (c.Right-c.Left)*(run-1)/float64(len(e.Curve)-1)) }
	y := func(calls float64) float64 { return tenth(c.Bottom - (c.Bottom-c.Top)*(calls-low)/(high-low)) }
	var points []string
	for i, calls := range e.Curve {
		c.Last = point{x(float64(i + 1)), y(calls)}
		points = append(points, fmt.Sprintf("%g,%g", c.Last.X, c.Last.Y))
	}
	c.Line, c.Total = strings.Join(points, " "), y(e.Total)
	for v := low; v <= high; v += step {
		c.Upward = append(c.Upward, tick{y(v), fmt.Sprint(v)})
	}
	runs := len(e.Curve)
	each := max(1, (runs+9)/10)
	for run := 1; run <= runs; run += each {
		c.Across = append(c.Across, tick{x(float64(run)), fmt.Sprint(run)})
	}
	return c
}

func tenth(x float64) float64 { return math.Round(10*x) / 10 }

func entryAnswer(e profile.Entry) string {
	v := profile.Verdict{Action: e.Action, Errno: 1}
	if e.Errno != nil {
		v.Errno = *e.Errno
	}
	return profile.Rule{Verdict: v, Args: e.Args}.String()
}

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/internal/docker"
	"github.com/seccompgen/seccompgen/internal/report"
	"github.com/seccompgen/seccompgen/internal/verify"
	"github.com/seccompgen/seccompgen/profile"
)

func reportFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "report", Usage: "write a report to `FILE`.html, .json, .xml (JUnit) or .md (for a pull request); can be repeated"},
		&cli.StringFlag{Name: "report-why", Usage: "show the reasons that build --why wrote to `FILE` in the report (default: why.json beside the profile, if it is that profile's)"},
		&cli.StringFlag{Name: "report-cover", Usage: "show the coverage that go test -coverprofile wrote to `FILE` in the report"},
	}
}

// reports are the files to write, and what they show beside the outcome. All of it is read before a long run.
type reports struct {
	paths  []string
	input  report.Input
	stdout io.Writer
}

func openReports(c *cli.Context, p *specs.LinuxSeccomp, recorded *profile.Recording) (*reports, error) {
	r := &reports{paths: c.StringSlice("report"), input: report.Input{Profile: p, Recording: recorded}, stdout: c.App.Writer}
	if len(r.paths) == 0 {
		for _, flag := range []string{"report-why", "report-cover"} {
			if c.IsSet(flag) {
				return nil, fmt.Errorf("--%s: there is no --report to show it in", flag)
			}
		}
		return r, nil
	}
	for _, path := range r.paths {
		if err := errors.Join(report.Check(path), checkOutput(path)); err != nil {
			return nil, err
		}
	}
	if path := c.String("profile"); path != "-" { // which has been read
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read the profile again: %w", err)
		}
		sum := sha256.Sum256(data)
		r.input.SHA256 = hex.EncodeToString(sum[:])
		if r.input.Why, err = reportWhy(c, data); err != nil {
			return nil, err
		}
	}
	if path := c.String("report-cover"); path != "" {
		f, err := openInput(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if r.input.Coverage, err = report.ReadCoverage(c.Context, f, "."); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return r, nil
}

// reportWhy reads the reasons of a profile. Those beside it may be another one's, or absent: nobody asked for them.
func reportWhy(c *cli.Context, data []byte) (*profile.Why, error) {
	path := c.String("report-why")
	asked := path != ""
	if !asked {
		path = filepath.Join(filepath.Dir(c.String("profile")), "why.json")
	}
	why, err := readFile(path, profile.ReadWhy)
	if err == nil {
		if err = why.Explains(data); err == nil {
			return why, nil
		}
		err = fmt.Errorf("%s: %w", path, err)
	}
	if asked || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, profile.ErrOtherProfile) {
		return nil, err
	}
	return nil, nil
}

func (r *reports) write(outcome *verify.Report, spec *specs.Spec) error {
	if len(r.paths) == 0 {
		return nil
	}
	r.input.Report = outcome
	var err error
	if r.input.Docker, err = docker.For(spec); err != nil {
		return err
	}
	d := report.New(r.input)
	for _, path := range r.paths {
		if err := writeOutput(r.stdout, path, func(to io.Writer) error { return d.Write(path, to) }); err != nil {
			return err
		}
	}
	return nil
}

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/internal/artifact"
	"github.com/seccompgen/seccompgen/profile"
)

// defaultOutputs are where build writes without -o. That of oci is the flag's own.
var defaultOutputs = map[profile.Format]string{
	profile.FormatSPO: "seccompprofile.yaml", profile.FormatPod: "pod.yaml", profile.FormatArtifact: "profile.artifact",
}

// formatOf returns the format that build was asked for, and where it goes.
func formatOf(c *cli.Context) (profile.Format, string) {
	format, out := profile.Format(c.String("format")), c.String("o")
	if other := defaultOutputs[format]; other != "" && !c.IsSet("o") {
		out = other
	}
	return format, out
}

// checkFormat says now what would fail after the building.
func checkFormat(c *cli.Context) error {
	format, out := formatOf(c)
	if !slices.Contains(profile.Formats(), format) {
		return fmt.Errorf("format %q is not one of %v", format, profile.Formats())
	}
	if err := checkOutput(c.String("why")); err != nil {
		return err
	}
	if format != profile.FormatArtifact {
		if c.IsSet("push") {
			return errors.New("--push goes with --format artifact")
		}
		return checkOutput(out)
	}
	if out == "-" {
		return hinted{errors.New("an artifact is a directory"), "give -o DIR"}
	}
	if st, err := os.Stat(out); err == nil && !st.IsDir() {
		return fmt.Errorf("output %s is not a directory", out)
	}
	_, err := created()
	return err
}

// created is the time that an artifact says it was made at: none, unless SOURCE_DATE_EPOCH gives one, so that the same
// profile has the same digest everywhere (reproducible-builds.org/specs/source-date-epoch).
func created() (time.Time, error) {
	text, ok := os.LookupEnv("SOURCE_DATE_EPOCH")
	if !ok || text == "" {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q is no number of seconds", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// writeProfile writes a profile in the format that build was asked for. why comes to explain the file that was written, where
// explain can read that.
func writeProfile(c *cli.Context, p *specs.LinuxSeccomp, why *profile.Why, r *profile.Recording) error {
	format, out := formatOf(c)
	name := c.String("name")
	if name == "" {
		name = profile.ObjectName(r.Workload.Package)
	}
	var data []byte
	var err error
	switch format {
	case profile.FormatDocker:
		data, err = profile.EncodeDocker(p, why)
	case profile.FormatPodman:
		data, err = profile.EncodePodman(p, why)
	case profile.FormatSPO:
		data, err = profile.EncodeSPO(p, name)
	case profile.FormatPod:
		data, err = profile.EncodePod(name + ".json")
	case profile.FormatArtifact:
		return writeArtifact(c, p, out, name)
	default:
		data, err = profile.Encode(p)
	}
	if err != nil {
		return err
	}
	if format == profile.FormatDocker || format == profile.FormatPodman {
		sum := sha256.Sum256(data)
		why.Profile = hex.EncodeToString(sum[:])
	}
	return writeOutput(c.App.Writer, out, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

func writeArtifact(c *cli.Context, p *specs.LinuxSeccomp, dir, name string) error {
	layer, err := profile.EncodeArtifact(p)
	if err != nil {
		return err
	}
	at, err := created()
	if err != nil {
		return err
	}
	digest, err := artifact.Write(c.Context, dir, layer, artifact.Options{Title: name + ".json", Created: at})
	if err != nil {
		return fmt.Errorf("write artifact %s: %w", dir, err)
	}
	say(c.App.ErrWriter, "artifact %s in %s", digest, dir)
	if ref := c.String("push"); ref != "" {
		if err := artifact.Push(c.Context, dir, digest, ref); err != nil {
			return fmt.Errorf("push artifact to %s: %w", ref, err)
		}
		say(c.App.ErrWriter, "pushed, refer to it by its digest: %s", artifact.ByDigest(ref, digest))
	}
	return nil
}

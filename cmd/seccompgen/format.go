package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/internal/artifact"
	"github.com/seccompgen/seccompgen/profile"
	"github.com/seccompgen/seccompgen/profile/format"
)

// defaultOutputs are where build writes without -o. That of oci is the flag's own.
var defaultOutputs = map[format.Format]string{
	format.SPO: "seccompprofile.yaml", format.Pod: "pod.yaml", format.Artifact: "profile.artifact",
}

// formatOf returns the format that build was asked for, and where it goes.
func formatOf(c *cli.Context) (format.Format, string) {
	as, out := format.Format(c.String("format")), c.String("o")
	if other := defaultOutputs[as]; other != "" && !c.IsSet("o") {
		out = other
	}
	return as, out
}

// checkFormat says now what would fail after the building.
func checkFormat(c *cli.Context) error {
	as, out := formatOf(c)
	if !slices.Contains(format.All(), as) {
		return fmt.Errorf("format %q is not one of %v", as, format.All())
	}
	if err := checkOutput(c.String("why")); err != nil {
		return err
	}
	if as != format.Artifact {
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
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q is not a number of seconds", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// nameOf returns what a profile is called after.
func nameOf(recordings []*profile.Recording, binaries []profile.Binary) string {
	if len(recordings) > 0 {
		return recordings[0].Workload.Name()
	}
	return filepath.Base(binaries[0].Path)
}

// writeProfile writes a profile in the format that build was asked for. why comes to explain the file that was written, where
// explain can read that.
func writeProfile(c *cli.Context, p *specs.LinuxSeccomp, why *profile.Why, name string) error {
	as, out := formatOf(c)
	name = cmp.Or(c.String("name"), format.ObjectName(name))
	var data []byte
	var err error
	switch as {
	case format.Docker:
		data, err = format.EncodeDocker(p, why)
	case format.Podman:
		data, err = format.EncodePodman(p, why)
	case format.SPO:
		data, err = format.EncodeSPO(p, name)
	case format.Pod:
		data, err = format.EncodePod(name + ".json")
	case format.Artifact:
		return writeArtifact(c, p, out, name)
	default:
		data, err = profile.Encode(p)
	}
	if err != nil {
		return err
	}
	if as == format.Docker || as == format.Podman {
		sum := sha256.Sum256(data)
		why.Profile = hex.EncodeToString(sum[:])
	}
	return writeOutput(c.App.Writer, out, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

func writeArtifact(c *cli.Context, p *specs.LinuxSeccomp, dir, name string) error {
	layer, err := format.EncodeArtifact(p)
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

// Package version says which build of seccompgen this is.
package version

import (
	"cmp"
	"runtime/debug"
)

// release is set by make VERSION=v1.2.3. Without it the go command takes the version from the repository.
var release string

// String returns the version.
func String() string {
	info, _ := debug.ReadBuildInfo()
	return text(release, info)
}

// Full returns the version, with the commit and its date where the build knows them.
func Full() string {
	info, _ := debug.ReadBuildInfo()
	return full(release, info)
}

func text(release string, info *debug.BuildInfo) string {
	if info == nil {
		return cmp.Or(release, "unknown")
	}
	return cmp.Or(release, info.Main.Version, "unknown")
}

func full(release string, info *debug.BuildInfo) string {
	s := text(release, info)
	if info == nil {
		return s
	}
	vcs := map[string]string{}
	for _, setting := range info.Settings {
		vcs[setting.Key] = setting.Value
	}
	if vcs["vcs.revision"] == "" {
		return s
	}
	s += " (commit " + vcs["vcs.revision"] + " of " + vcs["vcs.time"]
	if vcs["vcs.modified"] == "true" {
		s += ", and changes"
	}
	return s + ")"
}

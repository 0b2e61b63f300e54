package version

import (
	"runtime/debug"
	"testing"
)

func TestFull(t *testing.T) {
	built := &debug.BuildInfo{
		Main:     debug.Module{Version: "v0.0.0-20261126170402-fb0ca06aaaaa"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "fb0ca06"}, {Key: "vcs.time", Value: "2026-11-26T17:04:02Z"}, {Key: "vcs.modified", Value: "false"}},
	}
	for name, c := range map[string]struct {
		release string
		info    *debug.BuildInfo
		want    string
	}{
		"nothing":    {"", nil, "unknown"},
		"release":    {"v1.2.3", built, "v1.2.3 (commit fb0ca06 of 2026-11-26T17:04:02Z)"},
		"commit":     {"", built, "v0.0.0-20261126170402-fb0ca06aaaaa (commit fb0ca06 of 2026-11-26T17:04:02Z)"},
		"no commit":  {"", &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "(devel)"},
		"no version": {"v1.2.3", &debug.BuildInfo{}, "v1.2.3"},
		"changed": {"v1.2.3", &debug.BuildInfo{Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "f"}, {Key: "vcs.time", Value: "t"}, {Key: "vcs.modified", Value: "true"},
		}}, "v1.2.3 (commit f of t, and changes)"},
	} {
		if got := full(c.release, c.info); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

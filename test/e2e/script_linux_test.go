package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/seccompgen/seccompgen/test/lab"
)

// TestScript runs the scripts of testdata/script: the command line as a user meets it. Beside testscript's own commands
// they have
//
//	exits STATUS COMMAND...         run the command, and fail unless its exit status is the one given
//	exits STATUS unprivileged ...   the same as the user nobody
//	exits STATUS hiding DIR ...     the same where DIR is empty
//
// and the conditions root and busybox (a static one, in $BUSYBOX).
func TestScript(t *testing.T) {
	tmp := t.TempDir()
	for dir := tmp; dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // nobody works here too
			t.Fatal(err)
		}
	}
	var env []string
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY"} {
		out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, name+"="+strings.TrimSpace(string(out)))
	}
	busybox, err := exec.LookPath("busybox")
	if err == nil {
		env = append(env, "BUSYBOX="+busybox)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join(lab.Repo, "testdata/script"),
		WorkdirRoot:         tmp,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, env...)
			return os.Chmod(e.WorkDir, 0o777)
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return lab.Root, nil
			case "busybox":
				return lab.IsStatic(busybox), nil
			}
			return false, errors.New("no such condition")
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS [unprivileged | hiding DIR] COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	args = args[1:]
	switch {
	case args[0] == "unprivileged" && lab.Root:
		args = append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, args[1:]...)
	case args[0] == "unprivileged":
		args = args[1:]
	case args[0] == "hiding":
		// The pins of other scripts go too: whoever finds the programs loaded needs nothing of the host.
		const hide = `mountpoint -q ` + lab.BPFFSDir + ` && umount --lazy ` + lab.BPFFSDir + `; mount -t tmpfs none "$0" && exec "$@"`
		args = append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-c", hide}, args[1:]...)
	}
	err = ts.Exec(args[0], args[1:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

package verify

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seccompgen/seccompgen/internal/bundle"
	"github.com/seccompgen/seccompgen/internal/container"
	"github.com/seccompgen/seccompgen/profile"
)

// world is a workload that runs in no container: its test passes where no rule is broken.
type world struct {
	mu    sync.Mutex
	runs  int
	slow  time.Duration
	calls []string
	needs func(run int, verdict func(name string) string) bool
}

// Run makes the world a [Runner].
func (w *world) Run(_ context.Context, _ *bundle.Bundle, o container.Options) (*profile.Recording, error) {
	time.Sleep(w.slow)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs++
	rec := made(o.Seccomp, w.calls...)
	rec.Tests = map[string]string{"TestIt": "pass"}
	r := profile.Resolve(o.Seccomp)
	if !w.needs(w.runs, func(name string) string {
		nr, _ := profile.Number(specs.ArchX86_64, name)
		return r.Decide(specs.ArchX86_64, nr, [6]uint64{}).String()
	}) {
		rec.Tests["TestIt"] = "fail"
	}
	return rec, nil
}

func (w *world) shrinker(t *testing.T, state string, jobs int, calls ...string) *shrinker {
	t.Helper()
	w.calls = calls
	baseline := &profile.Recording{Tests: map[string]string{"TestIt": "pass"}, Runs: []profile.Run{{}}}
	return &shrinker{
		s: w, b: testBundle(), p: allowing(calls...),
		o:        Options{Settings: make([]Setting, 1), Jobs: jobs},
		so:       ShrinkOptions{Repeats: 3, State: state, Progress: func(string) {}, Budget: time.Hour},
		baseline: baseline, end: time.Now().Add(time.Hour),
		state: shrinkState{Version: stateVersion, Outcomes: map[string]Trial{}, Restored: map[string]Trial{}},
	}
}

// search does what Shrink does between its first runs and its last.
func (x *shrinker) search(t *testing.T) (answers, []Needed, error) {
	t.Helper()
	removed := answers{}
	candidates := profile.Allowed(x.p)
	err := x.reduce(t.Context(), candidates, removed)
	var needed []Needed
	if err == nil {
		needed, err = x.certify(t.Context(), candidates, removed)
	}
	return removed, needed, err
}

// The search ends with no call that could go, whatever depends on what, and does not depend on how many runs are made at a
// time. A budget stops it, and it goes on without a run made twice.
func TestSearch(t *testing.T) {
	const allowed, enosys, eperm = "allowed", "ENOSYS", "EPERM"
	for name, c := range map[string]struct {
		needs   func(run int, verdict func(string) string) bool
		removed answers
		needed  []string
	}{
		"independent": {
			func(_ int, v func(string) string) bool { return v("read") == allowed && v("write") == allowed },
			answers{"getpid": 1, "openat": 1, "statx": 1},
			[]string{"read", "write"},
		},
		"nothing can go": {
			func(_ int, v func(string) string) bool {
				return v("getpid") == allowed && v("openat") == allowed && v("read") == allowed && v("statx") == allowed && v("write") == allowed
			},
			answers{},
			[]string{"getpid", "openat", "read", "statx", "write"},
		},
		"a fallback after ENOSYS only": {
			func(_ int, v func(string) string) bool { return v("read") == allowed && v("statx") != eperm },
			answers{"getpid": 1, "openat": 1, "statx": uint(unix.ENOSYS), "write": 1},
			[]string{"read"},
		},
		"EPERM only": {
			func(_ int, v func(string) string) bool { return v("read") == allowed && v("statx") != enosys },
			answers{"getpid": 1, "openat": 1, "statx": 1, "write": 1},
			[]string{"read"},
		},
		"one of two": {
			func(_ int, v func(string) string) bool { return v("openat") == allowed || v("statx") == allowed },
			answers{"getpid": 1, "read": 1, "write": 1, "openat": 1},
			[]string{"statx"},
		},
		"one because another is there": { // statx can go only once openat has gone
			func(_ int, v func(string) string) bool {
				return v("read") == allowed && (v("statx") == allowed || v("openat") != allowed)
			},
			answers{"getpid": 1, "openat": 1, "statx": 1, "write": 1},
			[]string{"read"},
		},
	} {
		for _, jobs := range []int{1, 2, 7} {
			w := &world{needs: c.needs}
			state := filepath.Join(t.TempDir(), "state.json")
			x := w.shrinker(t, state, jobs, "getpid", "openat", "read", "statx", "write")
			removed, needed, err := x.search(t)
			var names []string
			for _, n := range needed {
				names = append(names, n.Name)
				for _, trial := range n.Trials {
					if trial.Failed != 3 || trial.Of != 3 || trial.What != "TestIt says fail" || len(n.Trials) != 2 {
						t.Errorf("%s, %d jobs: %s: %+v", name, jobs, n.Name, n.Trials)
					}
				}
			}
			if err != nil || !maps.Equal(removed, c.removed) || !slices.Equal(names, c.needed) {
				t.Errorf("%s, %d jobs: removed %v, needed %v, %v", name, jobs, removed, names, err)
			}
			// Again, knowing all: no run.
			w.runs = 0
			if again, _, err := x.search(t); err != nil || !maps.Equal(again, removed) || w.runs != 0 {
				t.Errorf("%s, %d jobs: again %v, %v, in %d runs", name, jobs, again, err, w.runs)
			}
		}
	}
}

func TestSearchBudget(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.json")
	synctest.Test(t, func(t *testing.T) {
		w := &world{slow: time.Millisecond, needs: func(_ int, v func(string) string) bool { return v("read") == "allowed" }}
		x := w.shrinker(t, state, 2, "getpid", "openat", "read")
		stops := 0
		for {
			x.end = time.Now().Add(3 * time.Millisecond)
			_, needed, err := x.search(t)
			if err == nil {
				if len(needed) != 1 || needed[0].Name != "read" {
					t.Errorf("needed %v", needed)
				}
				break
			}
			if !errors.Is(err, ErrBudget) {
				t.Fatal(err)
			}
			stops++
		}
		if stops == 0 {
			t.Error("it never stopped")
		}
	})
}

// A call that is needed now and then is seen to be by more runs, and one failure among many is no proof that it is not.
func TestNeededNowAndThen(t *testing.T) {
	w := &world{needs: func(run int, v func(string) string) bool { return v("read") == "allowed" || run%3 != 2 }}
	x := w.shrinker(t, filepath.Join(t.TempDir(), "state.json"), 1, "read")
	needed, err := x.certify(t.Context(), []string{"read"}, answers{})
	if err != nil || len(needed) != 1 {
		t.Fatal(needed, err)
	}
	mixed := 0
	for _, trial := range needed[0].Trials {
		if trial.Failed == 0 || trial.Failed > 2 {
			t.Errorf("got %+v", trial)
		}
		if trial.Of > 3 {
			mixed++
		}
	}
	if mixed == 0 {
		t.Errorf("no more runs were made: %+v", needed)
	}
}

// What a run failed in is said rather than what it did not come to.
func TestNoticed(t *testing.T) {
	x := &shrinker{baseline: &profile.Recording{Tests: map[string]string{"TestA": "pass", "TestB": "pass", "TestC": "skip"}, Runs: []profile.Run{{}}}, flaky: map[string]bool{"TestC": true}}
	for want, tests := range map[string]map[string]string{
		"":                   {"TestA": "pass", "TestB": "pass", "TestC": "fail"},
		"TestB says fail":    {"TestB": "fail"},
		"TestA says nothing": {"TestB": "pass"},
		"TestD says pass":    {"TestA": "pass", "TestB": "pass", "TestD": "pass"},
	} {
		if got := x.noticed(&profile.Recording{Tests: tests, Runs: []profile.Run{{}}}); got != want {
			t.Errorf("%v: got %q, want %q", tests, got, want)
		}
	}
	if got := x.noticed(&profile.Recording{Tests: map[string]string{"TestB": "pass"}, Runs: []profile.Run{{Exit: 2}}}); got != "the exit status is 2, and TestA says nothing" {
		t.Errorf("got %q", got)
	}
	if got := x.noticed(&profile.Recording{Tests: map[string]string{"TestA": "pass", "TestB": "pass"}, Runs: []profile.Run{{Exit: 3}}}); got != "the exit status is 3" {
		t.Errorf("got %q", got)
	}
}

// A call that is needed now and then passes a few runs without it; many show who is to blame.
func TestConfirm(t *testing.T) {
	for name, c := range map[string]struct {
		needs    func(run int, verdict func(string) string) bool
		restored []string
		what     string
	}{
		"nothing to restore": {func(int, func(string) string) bool { return true }, nil, ""},
		"only bad runs were denied it": { // the fake's runs are denied all that was removed
			func(_ int, v func(string) string) bool { return v("read") == "allowed" }, []string{"getpid", "read"}, "TestIt says fail, without getpid read together",
		},
		"one of several": {
			func(run int, v func(string) string) bool { return v("read") == "allowed" || run%4 != 0 }, []string{"read"}, "TestIt says fail",
		},
		"one of two is enough, the runtime's own first": {
			func(run int, v func(string) string) bool {
				return v("tgkill") == "allowed" || v("close") == "allowed" || run%5 != 0
			}, []string{"tgkill"}, "TestIt says fail",
		},
		"two are needed": {
			func(run int, v func(string) string) bool {
				return v("tgkill") == "allowed" && v("close") == "allowed" || run%5 != 0
			}, []string{"close", "tgkill"}, "TestIt says fail, without close tgkill together",
		},
	} {
		w := &world{needs: c.needs}
		calls := []string{"getpid", "read"}
		if slices.Contains(c.restored, "tgkill") {
			calls = []string{"close", "dup", "getpid", "read", "tgkill"}
		}
		x := w.shrinker(t, filepath.Join(t.TempDir(), "state.json"), 1, calls...)
		removed := answers{}
		for _, call := range calls {
			removed[call] = 1
		}
		denied, err := x.confirm(t.Context(), removed)
		var restored []string
		for answer := range x.state.Restored {
			call, ok := strings.CutSuffix(answer, " EPERM")
			if !ok {
				t.Errorf("%s: restored %s", name, answer)
			}
			restored = append(restored, call)
		}
		slices.Sort(restored)
		if err != nil || !slices.Equal(restored, c.restored) {
			t.Errorf("%s: restored %+v, %v", name, x.state.Restored, err)
		}
		if want := slices.DeleteFunc(slices.Clone(calls), func(call string) bool { return slices.Contains(c.restored, call) }); !slices.Equal(denied, want) {
			t.Errorf("%s: denied %v, want %v", name, denied, want)
		}
		for answer, trial := range x.state.Restored {
			call := strings.TrimSuffix(answer, " EPERM")
			if trial.What != c.what || trial.Failed == 0 || trial.Of < 10 || trial.Errno != "EPERM" {
				t.Errorf("%s: %s: %+v", name, call, trial)
			}
			if _, gone := removed[call]; gone {
				t.Errorf("%s: %s is still removed", name, call)
			}
		}
		// Who goes on from the state restores the same without looking again.
		again := answers{}
		for _, call := range calls {
			again[call] = 1
		}
		if _, err := x.confirm(t.Context(), again); err != nil || !maps.Equal(again, removed) {
			t.Errorf("%s: again %v, %v", name, again, err)
		}
	}
	w := &world{needs: func(run int, _ func(string) string) bool { return run%3 != 0 }}
	x := w.shrinker(t, filepath.Join(t.TempDir(), "state.json"), 1, "getpid")
	if _, err := x.confirm(t.Context(), answers{}); !errors.Is(err, ErrUnstable) {
		t.Errorf("where nothing is to blame: %v", err)
	}
}

// What was seen with one answer proves nothing about the other: a call that was restored may still go with that.
func TestRestoredAnswer(t *testing.T) {
	for _, other := range []bool{true, false} { // whether the call can do without, after ENOSYS
		w := &world{needs: func(_ int, v func(string) string) bool { return other || v("read") != "ENOSYS" }}
		x := w.shrinker(t, filepath.Join(t.TempDir(), "state.json"), 1, "read")
		joint := Trial{Errno: "EPERM", Failed: 1, Of: 10, What: "seen with others"}
		x.state.Restored["read EPERM"] = joint
		removed := answers{"read": uint(unix.EPERM)}
		if _, err := x.confirm(t.Context(), removed); err != nil || len(removed) > 0 {
			t.Fatalf("not restored: %v, %v", removed, err)
		}
		needed, err := x.certify(t.Context(), []string{"read"}, removed)
		if err != nil {
			t.Fatal(err)
		}
		if other && (len(needed) > 0 || removed["read"] != uint(unix.ENOSYS)) {
			t.Errorf("needed %+v, removed %v", needed, removed)
		}
		if !other && (len(needed) != 1 || needed[0].Trials[0] != joint || needed[0].Trials[1] != (Trial{"ENOSYS", 3, 3, "TestIt says fail"})) {
			t.Errorf("needed %+v, removed %v", needed, removed)
		}
		if x.state.Restored["read ENOSYS"] = joint; other { // and not again, once it is restored with both
			if _, err := x.confirm(t.Context(), removed); err != nil || len(removed) > 0 {
				t.Errorf("not restored: %v, %v", removed, err)
			}
		}
	}
}

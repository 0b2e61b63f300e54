package bundle

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestVary(t *testing.T) {
	if first := Stress(1); len(first.Env)+len(first.Flags) != 0 {
		t.Errorf("the first run is varied: %+v", first)
	}
	b := &Bundle{Init: true, Spec: &specs.Spec{Process: &specs.Process{
		Args: []string{"init", "x.test", "-test.paniconexit0", "-test.v=test2json", "-test.short"}, Env: []string{"GOGC=50", "GODEBUG=a=1"},
	}}}
	for range 2 { // the bundle itself stays as it is
		v := b.Vary(Variation{Env: []string{"GOGC=5", "GODEBUG=b=2", "GOMAXPROCS=1"}, Flags: []string{"-test.cpu=2"}})
		if want := []string{"GOGC=50", "GODEBUG=a=1,b=2", "GOMAXPROCS=1"}; !slices.Equal(v.Spec.Process.Env, want) {
			t.Errorf("environment %v, want %v", v.Spec.Process.Env, want)
		}
		if want := []string{"init", "x.test", "-test.paniconexit0", "-test.v=test2json", "-test.cpu=2", "-test.short"}; !slices.Equal(v.Spec.Process.Args, want) {
			t.Errorf("arguments %v, want %v", v.Spec.Process.Args, want)
		}
		if want := []string{"GODEBUG=b=2", "GOMAXPROCS=1", "-test.cpu=2"}; !slices.Equal(v.Varied, want) {
			t.Errorf("varied by %v, want %v", v.Varied, want)
		}
	}
	b.Init = false
	if v := b.Vary(Stress(6)); len(v.Spec.Process.Args) != 5 || len(v.Varied) != 0 {
		t.Errorf("a command got flags of tests: %v", v.Spec.Process.Args)
	}
}

package gotest

import (
	"slices"
	"testing"
)

func TestSeveral(t *testing.T) {
	for _, test := range []struct {
		words []string
		want  bool
	}{
		{nil, false},
		{[]string{"."}, false},
		{[]string{"./pkg"}, false},
		{[]string{"example.com/m/pkg"}, false},
		{[]string{"os"}, false},
		{[]string{"./std"}, false},
		{[]string{"./..."}, true},
		{[]string{"..."}, true},
		{[]string{"example.com/m/..."}, true},
		{[]string{"./net..."}, true},
		{[]string{"all"}, true},
		{[]string{"std"}, true},
		{[]string{"work"}, true},
		{[]string{"./a", "./b"}, true},
		{[]string{"./a", "./a"}, true},
	} {
		if got := Several(test.words); got != test.want {
			t.Errorf("%q may name several packages: %t, want %t", test.words, got, test.want)
		}
	}
}

func TestCheckFlags(t *testing.T) {
	for _, test := range []struct {
		flags []string
		ok    bool
	}{
		{nil, true},
		{[]string{"-short", "-run", "TestX", "-tags=a,b", "--race", "-cover"}, true},
		{[]string{"-count=2", "-cpu", "1,2", "-covermode=atomic"}, true},
		{[]string{"-json"}, false},
		{[]string{"--json=true"}, false},
		{[]string{"-short", "-exec", "strace"}, false},
		{[]string{"-exec=strace"}, false},
		{[]string{"-c"}, false},
		{[]string{"-o=x"}, false},
		{[]string{"-p=3"}, false},
		{[]string{"-failfast"}, false},
		{[]string{"-args", "-json", "-c"}, true},
		{[]string{"c", "json"}, true},
	} {
		if err := CheckFlags(test.flags); (err == nil) != test.ok {
			t.Errorf("%q: %v, want them taken: %t", test.flags, err, test.ok)
		}
	}
}

func TestBinaryFlags(t *testing.T) {
	for _, test := range []struct{ args, want []string }{
		{nil, nil},
		{[]string{"-test.paniconexit0", "-test.count=1", "-test.timeout=0s"}, nil},
		{[]string{"-test.testlogfile=/tmp/b001/testlog.txt", "-test.paniconexit0", "-test.timeout=30s", "-test.count=2"}, []string{"-test.timeout=30s", "-test.count=2"}},
		{[]string{"-test.paniconexit0", "-test.short=true", "-test.v=true", "-test.run=X"}, []string{"-test.short=true", "-test.run=X"}},
		{[]string{"-test.v=true", "-own", "-test.v=true", "-test.count=1"}, []string{"-own", "-test.v=true", "-test.count=1"}},
		{[]string{"word", "-test.v=true"}, []string{"word", "-test.v=true"}},
	} {
		if got := binaryFlags(test.args); !slices.Equal(got, test.want) {
			t.Errorf("%q gives %q, want %q", test.args, got, test.want)
		}
	}
}

func TestPackageLine(t *testing.T) {
	for _, test := range []struct {
		line, pkg string
		built     bool
	}{
		{"ok  \texample.com/a\t0.1s\n", "example.com/a", true},
		{"ok  \texample.com/a\t0.1s\tcoverage: 5.0% of statements\n", "example.com/a", true},
		{"ok  \texample.com/a\t0.1s [no tests to run]\n", "example.com/a", true},
		{"FAIL\texample.com/a\t0.1s\n", "example.com/a", true},
		{"FAIL\texample.com/a [build failed]\n", "example.com/a", false},
		{"FAIL\t./nowhere/... [setup failed]\n", "./nowhere/...", false},
		{"?   \texample.com/a\t[no test files]\n", "", true},
		{"FAIL\n", "", true},
		{"FAIL: TestX\n", "", true},
		{"    x_test.go:3: FAIL\texample.com/a [build failed]\n", "", true},
		{"# example.com/a [example.com/a.test]\n", "", true},
		{"\n", "", true},
	} {
		if pkg, built := packageLine(test.line); pkg != test.pkg || built != test.built {
			t.Errorf("%q is of %q, built %t; want %q, %t", test.line, pkg, built, test.pkg, test.built)
		}
	}
}

package profile

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestRefusals(t *testing.T) {
	eacces, huge := uint(13), uint(70000)
	kill, enosys := Refusal{Action: "kill"}, Refusal{"errno", 38}
	tests := []struct {
		name string
		p    specs.LinuxSeccomp
		want []Refusal
	}{
		{"allow all: only foreign architectures and runc's stub", specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, []Refusal{kill, enosys}},
		{"the default errno", specs.LinuxSeccomp{DefaultAction: specs.ActErrno}, []Refusal{kill, enosys, {"errno", 1}}},
		{"an errno that is given", specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &eacces}, []Refusal{kill, enosys, {"errno", 13}}},
		{"the kernel cuts errnos", specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &huge}, []Refusal{kill, enosys, {"errno", 4095}}},
		{"entries", specs.LinuxSeccomp{DefaultAction: specs.ActKillProcess, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read"}, Action: specs.ActTrap}, {Names: []string{"write"}, Action: specs.ActErrno, ErrnoRet: &eacces}, {Names: []string{"open"}, Action: specs.ActLog},
		}}, []Refusal{kill, enosys, {Action: "trap"}, {"errno", 13}}},
		{"an agent answers as it likes", specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActNotify}}}, nil},
		{"so does a tracer", specs.LinuxSeccomp{DefaultAction: specs.ActTrace}, nil},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, Refusals(&test.p)); diff != "" {
			t.Errorf("%s:\n%s", test.name, diff)
		}
	}
}

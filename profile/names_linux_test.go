package profile

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestNewerNamesAreTheKernels(t *testing.T) {
	for nr, name := range map[uint32]string{unix.SYS_FILE_GETATTR: "file_getattr", unix.SYS_FILE_SETATTR: "file_setattr", unix.SYS_LISTNS: "listns", unix.SYS_RSEQ_SLICE_YIELD: "rseq_slice_yield"} {
		for _, abi := range ABIs() {
			if got := Name(abi, nr); got != name {
				t.Errorf("%s %d is %q, want %q", abi, nr, got, name)
			}
			if got, ok := Number(abi, name); !ok || got != nr {
				t.Errorf("%s %s is %d, want %d", abi, name, got, nr)
			}
		}
	}
}

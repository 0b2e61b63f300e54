package testresult

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestResults(t *testing.T) {
	for name, c := range map[string]struct {
		in, out string
		want    map[string]string
	}{
		"marked": {
			"\x16=== RUN   TestA\nhello\n\x16--- PASS: TestA (0.00s)\n\x16--- FAIL: TestB (1.50s)\n\x16    --- SKIP: TestB/sub_1 (0.00s)\nFAIL\n",
			"=== RUN   TestA\nhello\n--- PASS: TestA (0.00s)\n--- FAIL: TestB (1.50s)\n    --- SKIP: TestB/sub_1 (0.00s)\nFAIL\n",
			map[string]string{"TestA": "pass", "TestB": "fail", "TestB/sub_1": "skip"},
		},
		"a test that prints without a newline": {
			"\x16=== RUN   TestA\nno newline\x16--- PASS: TestA (0.00s)\n", "=== RUN   TestA\nno newline--- PASS: TestA (0.00s)\n",
			map[string]string{"TestA": "pass"},
		},
		"a test that prints a mark, and a result": { // what comes last is test2json's own
			"\x16=== RUN   TestA\nx\x16--- FAIL: TestX (0.00s)\x16--- PASS: TestA (0.00s)\n", "=== RUN   TestA\nx--- FAIL: TestX (0.00s)--- PASS: TestA (0.00s)\n",
			map[string]string{"TestA": "pass"},
		},
		"a test that prints a result": {
			"\x16=== RUN   TestA\n--- FAIL: TestX (0.00s)\n\x16--- PASS: TestA (0.00s)\n", "=== RUN   TestA\n--- FAIL: TestX (0.00s)\n--- PASS: TestA (0.00s)\n",
			map[string]string{"TestA": "pass"},
		},
		"without marks":      {"--- PASS: TestA (0.00s)\nok\n", "--- PASS: TestA (0.00s)\nok\n", map[string]string{"TestA": "pass"}},
		"a name of nobody":   {"\x16=== NAME  \nx\n", "x\n", nil},
		"no line end at all": {"\x16--- PASS: TestA (0.00s)", "--- PASS: TestA (0.00s)", map[string]string{"TestA": "pass"}},
		"nothing":            {"", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			for _, chunk := range []int{1, 7, 4096} {
				var out strings.Builder
				var told map[string]string
				p := &Parser{To: &out, Result: func(test, result string) {
					if told == nil {
						told = map[string]string{}
					}
					told[test] = result
				}}
				for rest := c.in; rest != ""; {
					n := min(chunk, len(rest))
					if got, err := p.Write([]byte(rest[:n])); got != n || err != nil {
						t.Fatalf("Write: %d, %v", got, err)
					}
					rest = rest[n:]
				}
				if err := p.Close(); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(c.want, p.Results()); diff != "" {
					t.Errorf("in chunks of %d: %s", chunk, diff)
				}
				if diff := cmp.Diff(c.want, told); diff != "" {
					t.Errorf("told in chunks of %d: %s", chunk, diff)
				}
				if diff := cmp.Diff(c.out, out.String()); diff != "" {
					t.Errorf("in chunks of %d: %s", chunk, diff)
				}
			}
		})
	}
}

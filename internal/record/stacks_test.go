package record

import "testing"

func TestTestFunction(t *testing.T) {
	for name, want := range map[string]string{
		"os_test.TestRemoveAll": "TestRemoveAll", "os_test.TestRemoveAll.func1": "TestRemoveAll", "example.com/a%2eb.(*suite).TestX": "TestX",
		"testing.tRunner": "", "os.Testify": "", "p.ExampleFile_Read": "ExampleFile_Read", "p.FuzzX.func1.2": "FuzzX", "p.Test": "",
	} {
		got := ""
		if m := testFunction.FindStringSubmatch(name); m != nil {
			got = m[1]
		}
		if got != want {
			t.Errorf("%s is test %q, want %q", name, got, want)
		}
	}
}

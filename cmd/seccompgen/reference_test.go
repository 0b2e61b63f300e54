package main

import (
	"bytes"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"text/template"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/urfave/cli/v2"

	"github.com/seccompgen/seccompgen/test/golden"
)

var functions = template.FuncMap{
	"name":     func(f cli.Flag) string { name, _, _ := strings.Cut(f.String(), "\t"); return name },
	"usage":    func(f cli.Flag) string { _, usage, _ := strings.Cut(f.String(), "\t"); return usage },
	"cell":     func(text string) string { return strings.ReplaceAll(text, "|", `\|`) },
	"sentence": func(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." },
	"help": func(program string) (string, error) { // the flag package's, on standard error
		out, err := exec.Command("go", "run", "../"+program, "-h").CombinedOutput()
		_, options, ok := strings.Cut(string(out), ":\n")
		if !ok {
			return "", err
		}
		return strings.TrimSpace(regexp.MustCompile(`(?m)^`).ReplaceAllString(strings.ReplaceAll(options, "\t", "  "), "    ")), nil
	},
}

const page = `# Command line

<!-- Made by make reference: change the commands in cmd/seccompgen instead. -->

    {{.Name}} [--debug] COMMAND [FLAG...] [ARGUMENT...] [-- WORD...]

| command | |
|---|---|
{{range .VisibleCommands}}| [{{.Name}}](#{{$.Name}}-{{.Name}}) | {{cell .Usage}} |
{{end}}
{{.Description}}

| flag of all commands | |
|---|---|
{{range .VisibleFlags}}| ` + "`{{name .}}`" + ` | {{cell (usage .)}} |
{{end}}{{range $c := .VisibleCommands}}
## {{$.Name}} {{.Name}}

    {{$.Name}} {{.Name}} [FLAG...]{{with .ArgsUsage}} {{.}}{{end}}

{{sentence .Usage}}
{{with .Description}}
{{.}}
{{end}}{{with .VisibleFlags}}
| flag | |
|---|---|
{{range .}}| ` + "`{{name .}}`" + ` | {{cell (usage .)}} |
{{end}}{{end}}{{end}}
## The other programs

Engines and runtimes start these, not people. They lie beside each other, in ` + "`/usr/local/libexec/seccompgen`" + ` or where they were built.

### oci-hook

The OCI hook, at createRuntime (or prestart) and at poststop: it reads the container's state from standard input.

    {{help "oci-hook"}}

### nri-plugin

The NRI plugin, for containerd.

    {{help "nri-plugin"}}

### seccompgen-runc

An OCI runtime, for Docker: runc with the hook added to containers that ask for a recording. Its flags are runc's. Under the name
seccompgen-RUNTIME it is RUNTIME with the hook.
`

const manual = `seccompgen 1 "" "seccompgen" "User Commands"
====

# NAME

{{.Name}} - {{.Usage}}

# SYNOPSIS

    {{.Name}} [--debug] COMMAND [FLAG...] [ARGUMENT...] [-- WORD...]

# DESCRIPTION

{{.Description}}

# FLAGS OF ALL COMMANDS
{{range .VisibleFlags}}
**{{name .}}**
: {{usage .}}
{{end}}
{{range $c := .VisibleCommands}}
# {{.Name}}

    {{$.Name}} {{.Name}} [FLAG...]{{with .ArgsUsage}} {{.}}{{end}}

{{sentence .Usage}}
{{with .Description}}
{{.}}
{{end}}{{range .VisibleFlags}}
**{{name .}}**
: {{usage .}}
{{end}}{{end}}
`

// TestReference holds that what is made from the commands was made from these. -update makes it.
func TestReference(t *testing.T) {
	app := newApp(io.Discard, io.Discard, new(bool))
	app.Setup()
	render := func(text string) []byte {
		var b bytes.Buffer
		if err := template.Must(template.New("").Funcs(functions).Parse(text)).Execute(&b, app); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	fish, err := app.ToFishCompletion()
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string][]byte{
		"docs/reference/cli.md":                           render(page),
		"share/man/man1/seccompgen.1":                     md2man.Render(render(manual)),
		"share/fish/vendor_completions.d/seccompgen.fish": []byte(strings.ReplaceAll(fish, "`", "")),
	} {
		golden.Check(t, filepath.Join("..", "..", file), want) // make reference
	}
}

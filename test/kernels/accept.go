package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/seccompgen/seccompgen/test/lab"
)

const intro = `# Kernels

Debian's kernels, booted under emulation with two processors, and what the recorder did on them. Recordings: of a program
whose six busy threads call getppid while its main thread makes 60 other calls once each; those that call themselves complete held all 60.
Verifications: of that program under the profile of these recordings. A Go test is the package io's, recorded and built
once. ` + "`make kernels`" + ` measures rows again, and keeps the others.

| kernel | architecture | preemption | recordings complete | verified | a missing call is named | 32-bit calls | joiners | a Go test verified | measured |
|---|---|---|---|---|---|---|---|---|---|
`

// accept boots the kernels, or all, runs accept.sh in each, and writes a table of what came out.
func (o options) accept(ctx context.Context, names []string) (status int, err error) {
	chosen := kernels
	if len(names) > 0 {
		chosen = nil
	}
	for _, name := range names {
		k, err := find(name)
		if err != nil {
			return 1, err
		}
		chosen = append(chosen, k)
	}
	commit := ""
	if o.out != "" {
		if commit, err = lab.Commit(); err != nil {
			return 1, err
		}
	}
	for _, k := range chosen {
		im, err := o.prepare(k)
		if err != nil {
			return 1, err
		}
		var said bytes.Buffer
		began := time.Now()
		exit, err := o.boot(ctx, k, im, []string{"sh", "accept.sh", fmt.Sprint(o.n)}, io.MultiWriter(&said, os.Stdout))
		if err != nil {
			return 1, err
		}
		fmt.Printf("%s: exit %d after %.0f s\n", k.name, exit, time.Since(began).Seconds())
		status = max(status, exit)
		if o.out == "" {
			continue
		}
		was, err := os.ReadFile(o.out)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 1, err
		}
		measured := row(k, said.String(), exit) + fmt.Sprintf(" %s, commit %s |", time.Now().UTC().Format("2006-01-02"), commit)
		if err := renameio.WriteFile(o.out, []byte(intro+strings.Join(with(rows(string(was)), measured), "\n")+"\n"), 0o644); err != nil {
			return 1, err
		}
	}
	return status, nil
}

// row makes a row of the table from what a guest said.
func row(k kernel, said string, exit int) string {
	results := map[string]string{}
	for line := range strings.Lines(said) {
		if result, ok := strings.CutPrefix(strings.TrimSpace(line), "accept: "); ok {
			name, value, _ := strings.Cut(result, " ")
			results[name] = value
		}
	}
	of := func(name string) string { return cmp.Or(results[name], "–") }
	if refused := results["refused"]; refused != "" {
		return fmt.Sprintf("| %s | %s | %s | refused: %s | | | | | |", of("kernel"), k.arch, k.preemption(), refused)
	}
	complete := of("recordings")
	if exit != 0 {
		complete += " (**failed**: " + of("FAIL") + ")"
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s | %s | %s |", of("kernel"), k.arch, k.preemption(), complete,
		of("verifications"), of("denials"), of("compat"), of("joiners"), of("go"))
}

// rows returns the rows of a table that was written before.
func rows(table string) []string {
	_, body, _ := strings.Cut(table, intro)
	return slices.Collect(strings.FieldsFuncSeq(body, func(r rune) bool { return r == '\n' }))
}

// with puts a row in the place of the one of the same kernel, or at the end.
func with(rows []string, row string) []string {
	kernel := func(row string) string { return strings.Join(strings.SplitN(row, "|", 5)[:4], "|") } // with its architecture and preemption
	if i := slices.IndexFunc(rows, func(old string) bool { return kernel(old) == kernel(row) }); i >= 0 {
		rows[i] = row
		return rows
	}
	return append(rows, row)
}

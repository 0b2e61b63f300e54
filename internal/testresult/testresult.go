// Package testresult reads the results of Go tests from what a test binary prints.
package testresult

import (
	"bytes"
	"io"
	"regexp"
)

// mark precedes the lines that name results under -test.v=test2json: no output of a test can be taken for one.
const mark = 0x16

var resultLine = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+) \(`)

var words = map[string]string{"PASS": "pass", "FAIL": "fail", "SKIP": "skip"}

// Parser reads results from a stream and hands the stream on, without the marks.
type Parser struct {
	To      io.Writer
	Result  func(test, result string) // called for each; may be nil
	line    []byte
	marked  bool
	results map[string]string
}

// Write takes any part of the stream.
func (p *Parser) Write(data []byte) (int, error) {
	n := len(data)
	for {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			break
		}
		p.line = append(p.line, data[:i+1]...)
		data = data[i+1:]
		if err := p.flush(); err != nil {
			return 0, err
		}
	}
	p.line = append(p.line, data...)
	return n, nil
}

// Close hands on a last line that has no end.
func (p *Parser) Close() error { return p.flush() }

func (p *Parser) flush() error {
	line := p.line
	p.line = p.line[:0]
	// A test that prints without a newline has the mark in the middle of its line.
	if i := bytes.LastIndexByte(line, mark); i >= 0 {
		p.marked = true
		p.result(line[i+1:])
		line = bytes.ReplaceAll(line, []byte{mark}, nil)
	} else if !p.marked {
		p.result(line)
	}
	// test2json wants to know when output belongs to no test any more; a person does not.
	if p.To == nil || len(line) == 0 || string(line) == "=== NAME  \n" {
		return nil
	}
	_, err := p.To.Write(line)
	return err
}

func (p *Parser) result(line []byte) {
	m := resultLine.FindSubmatch(line)
	if m == nil {
		return
	}
	if p.results == nil {
		p.results = map[string]string{}
	}
	test, result := string(m[2]), words[string(m[1])]
	p.results[test] = result
	if p.Result != nil {
		p.Result(test, result)
	}
}

// Results returns pass, fail or skip by the name of the test.
func (p *Parser) Results() map[string]string { return p.results }

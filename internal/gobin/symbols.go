package gobin

// Symbols names the functions of a Go binary by their addresses.
type Symbols struct{ p *program }

// ReadSymbols reads the function table of a Go binary. It is there in stripped binaries too.
func ReadSymbols(path string) (*Symbols, error) {
	p, err := open(path)
	if err != nil {
		return nil, err
	}
	return &Symbols{p}, nil
}

// Fixed reports whether the binary runs at the addresses that its file names: a position-independent one does not.
func (s *Symbols) Fixed() bool { return !s.p.pie }

// Func returns the name of the function at an address, or "" if there is none.
func (s *Symbols) Func(pc uint64) string {
	if f := s.p.find(pc); f != nil {
		return f.name
	}
	return ""
}

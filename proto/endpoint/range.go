package endpoint

import (
	"fmt"
	"strconv"
	"strings"
)

// MaxPorts is the most ports of a range.
const MaxPorts = 1024

// Range is some endpoints of which each has the port after the one before it. It is
// written like an endpoint, with the first and the last port:
//
//	tcp://127.0.0.1:8000-8009
//
// One endpoint is a range of one. Ranges are for policies: grants and messages hold
// endpoints. Ranges are comparable with ==.
type Range struct {
	First Endpoint
	Ports int // 1 to MaxPorts
}

// ParseRange reads an endpoint or a range of at least two ports.
func ParseRange(s string) (Range, error) {
	head, ports, ok := cutPorts(s)
	if !ok {
		e, err := Parse(s)
		return Range{e, 1}, err
	}
	from, until, _ := strings.Cut(ports, "-")
	first, err := Parse(head + from)
	if err != nil {
		return Range{}, err
	}
	last, err := Parse(head + until)
	if err != nil {
		return Range{}, err
	}
	n := int(last.port) - int(first.port) + 1
	switch {
	case n < 1:
		return Range{}, fmt.Errorf("endpoint %q: the ports run backwards: write %d-%d", s, last.port, first.port)
	case n == 1:
		return Range{}, fmt.Errorf("endpoint %q: a range of one port: write %s", s, first)
	case n > MaxPorts:
		return Range{}, fmt.Errorf("endpoint %q: %d ports: a range has at most %d", s, n, MaxPorts)
	}
	return Range{first, n}, nil
}

// cutPorts cuts "tcp://HOST:" from "8000-8009".
func cutPorts(s string) (head, ports string, ok bool) {
	i := strings.LastIndexByte(s, ':') + 1
	if len(s) > MaxLen || !strings.HasPrefix(s, string(TCP)+"://") && !strings.HasPrefix(s, string(UDP)+"://") || !strings.ContainsRune(s[i:], '-') {
		return "", "", false
	}
	return s[:i], s[i:], true
}

// At returns the endpoint number i of the range, from 0.
func (r Range) At(i int) Endpoint {
	e := r.First
	e.port += uint16(i)
	return e
}

// String returns the range as ParseRange reads it.
func (r Range) String() string {
	if r.Ports < 2 {
		return r.First.String()
	}
	return r.First.String() + "-" + strconv.Itoa(int(r.First.port)+r.Ports-1)
}

// MarshalText implements encoding.TextMarshaler.
func (r Range) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Range) UnmarshalText(b []byte) error {
	p, err := ParseRange(string(b))
	if err != nil {
		return err
	}
	*r = p
	return nil
}

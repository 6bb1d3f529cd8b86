// Package endpoint holds the URIs that name where a forward listens and what
// it dials:
//
//	tcp://127.0.0.1:8080     tcp://[2001:db8::1]:22   tcp://db.lan:5432
//	udp://10.0.0.5:161       unix:///run/app.sock     stdio:
//
// There is one way to write an endpoint. Parse accepts that way only and
// String gives it back byte for byte, so two endpoints are the same forward
// end exactly when their texts are equal. What other parsers take for an
// address in disguise is refused: "127.1", "0x7f.1", "010.0.0.1",
// "2130706433", IPv4-mapped IPv6, zones, ports with a sign or a leading zero.
package endpoint

import (
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Scheme is the kind of an endpoint.
type Scheme string

// The schemes that exist. Others are refused by Parse.
const (
	TCP   Scheme = "tcp"   // a TCP address
	UDP   Scheme = "udp"   // a UDP address
	Unix  Scheme = "unix"  // a Unix stream socket, by absolute path
	Stdio Scheme = "stdio" // standard input and output of "netport-portal connect"; a listener only
)

// MaxLen is the longest endpoint in bytes.
const MaxLen = 320

// maxUnixPath is what sockaddr_un holds (108 bytes with the final NUL).
const maxUnixPath = 107

// Endpoint is one parsed URI. The zero Endpoint is none. Endpoints are
// comparable with ==.
type Endpoint struct {
	scheme Scheme
	host   string // canonical IP address or lower-case DNS name; empty for unix and stdio
	port   uint16 // 1-65535 for tcp and udp
	path   string // absolute and clean, for unix
}

// Parse reads an endpoint. The error says what is wrong with it and what a
// right one looks like.
func Parse(s string) (Endpoint, error) {
	if len(s) > MaxLen {
		return Endpoint{}, fmt.Errorf("endpoint of %d bytes: at most %d are allowed", len(s), MaxLen)
	}
	e, err := parse(s)
	if err != nil {
		return Endpoint{}, fmt.Errorf("endpoint %q: %w", s, err)
	}
	return e, nil
}

func parse(s string) (Endpoint, error) {
	if s == "stdio:" {
		return Endpoint{scheme: Stdio}, nil
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return Endpoint{}, fmt.Errorf("no scheme: write stdio:, unix:///PATH, tcp://HOST:PORT or udp://HOST:PORT")
	}
	switch Scheme(scheme) {
	case TCP, UDP:
		host, port, err := parseHostPort(rest)
		return Endpoint{scheme: Scheme(scheme), host: host, port: port}, err
	case Unix:
		err := checkPath(rest)
		return Endpoint{scheme: Unix, path: rest}, err
	}
	return Endpoint{}, fmt.Errorf("unknown scheme %q: use tcp, udp, unix or stdio", scheme)
}

func parseHostPort(s string) (host string, port uint16, err error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", 0, fmt.Errorf("no port: write HOST:PORT")
	}
	host, digits := s[:i], s[i+1:]
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != digits {
		return "", 0, fmt.Errorf("port %q is not a number from 1 to 65535", digits)
	}
	if in, ok := strings.CutPrefix(host, "["); ok {
		in, ok = strings.CutSuffix(in, "]")
		a, err := netip.ParseAddr(in)
		switch {
		case !ok || err != nil || !a.Is6():
			return "", 0, fmt.Errorf("%q is not an IPv6 address in brackets", host)
		case a.Zone() != "":
			return "", 0, fmt.Errorf("zone %q: an interface of one machine means nothing in a policy; use an address without a zone", a.Zone())
		case a.Is4In6():
			return "", 0, fmt.Errorf("%q is an IPv4 address in IPv6 clothes: write %s", host, a.Unmap())
		case a.String() != in:
			return "", 0, fmt.Errorf("%q is not the canonical form: write [%s]", host, a)
		}
		return in, uint16(n), nil
	}
	if strings.Contains(host, ":") {
		return "", 0, fmt.Errorf("an IPv6 address stands in brackets: [%s]:%s", host, digits)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a.String(), uint16(n), nil
	}
	return host, uint16(n), checkName(host)
}

// checkName accepts DNS names (RFC 1123 labels, lower case, no final dot)
// whose last label has a letter that no number has, so that nothing a libc
// would take for an IPv4 address passes as a name.
func checkName(s string) error {
	if s == "" {
		return fmt.Errorf("no host before the port")
	}
	if len(s) > 253 {
		return fmt.Errorf("name of %d bytes: at most 253 are allowed", len(s))
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return fmt.Errorf("%q is not a DNS name (labels of 1 to 63 letters, digits and inner hyphens, no dot at the end)", s)
		}
		for _, c := range []byte(l) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return fmt.Errorf("%q is not a DNS name in lower case", s)
			}
		}
	}
	last := labels[len(labels)-1]
	if last[0] >= '0' && last[0] <= '9' {
		return fmt.Errorf("%q is neither a DNS name nor an IP address: write IPv4 as four decimal numbers without leading zeros", s)
	}
	return nil
}

func checkPath(p string) error {
	switch {
	case !strings.HasPrefix(p, "/"):
		return fmt.Errorf("the path is not absolute: write unix:///PATH")
	case len(p) > maxUnixPath:
		return fmt.Errorf("path of %d bytes: a Unix socket's has at most %d", len(p), maxUnixPath)
	case path.Clean(p) != p || p == "/":
		return fmt.Errorf("the path is not clean: no //, no . or .. parts, no slash at the end")
	}
	for _, r := range p {
		// What does not show, or turns the text round, would let people approve
		// a path that is another than they read.
		if !unicode.IsGraphic(r) || r == utf8.RuneError {
			return fmt.Errorf("the path holds a control, an invisible or an invalid character")
		}
	}
	return nil
}

// MustParse is Parse for constants in tests and examples; it panics on error.
func MustParse(s string) Endpoint {
	e, err := Parse(s)
	if err != nil {
		panic(err)
	}
	return e
}

// FromAddrPort returns the endpoint of an address: scheme is TCP or UDP, the
// address is taken in its canonical form and without its zone.
func FromAddrPort(scheme Scheme, ap netip.AddrPort) Endpoint {
	return Endpoint{scheme: scheme, host: ap.Addr().Unmap().WithZone("").String(), port: ap.Port()}
}

// IsZero reports whether e is the zero Endpoint.
func (e Endpoint) IsZero() bool { return e == Endpoint{} }

// Scheme returns the kind of the endpoint.
func (e Endpoint) Scheme() Scheme { return e.scheme }

// Host returns the IP address (without brackets) or name of a TCP or UDP
// endpoint.
func (e Endpoint) Host() string { return e.host }

// Port returns the port of a TCP or UDP endpoint.
func (e Endpoint) Port() uint16 { return e.port }

// Path returns the path of a Unix endpoint.
func (e Endpoint) Path() string { return e.path }

// AddrPort returns the address of an endpoint whose host is an IP address.
func (e Endpoint) AddrPort() (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(e.host)
	if err != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a, e.port), true
}

// HostPort returns "host:port" as package net writes it, for TCP and UDP.
func (e Endpoint) HostPort() string {
	if strings.Contains(e.host, ":") {
		return "[" + e.host + "]:" + strconv.Itoa(int(e.port))
	}
	return e.host + ":" + strconv.Itoa(int(e.port))
}

// String returns the endpoint as Parse reads it; "" for the zero Endpoint.
func (e Endpoint) String() string {
	switch e.scheme {
	case "":
		return ""
	case Stdio:
		return "stdio:"
	case Unix:
		return "unix://" + e.path
	}
	return string(e.scheme) + "://" + e.HostPort()
}

// Datagram reports whether the endpoint carries datagrams and not a stream of
// bytes.
func (e Endpoint) Datagram() bool { return e.scheme == UDP }

// CheckListener reports why e cannot be where a forward listens: a listener
// has an IP address of its own machine, never a name.
func (e Endpoint) CheckListener() error {
	switch e.scheme {
	case TCP, UDP:
		ap, ok := e.AddrPort()
		if !ok {
			return fmt.Errorf("endpoint %q: a listener needs an IP address, not a name", e)
		}
		if ap.Addr().IsMulticast() {
			return fmt.Errorf("endpoint %q: a listener cannot be a multicast address", e)
		}
	}
	return nil
}

// CheckTarget reports why e cannot be what a forward dials.
func (e Endpoint) CheckTarget() error {
	if e.scheme == Stdio {
		return fmt.Errorf("endpoint %q: stdio: can only listen", e)
	}
	if ap, ok := e.AddrPort(); ok && (ap.Addr().IsUnspecified() || ap.Addr().IsMulticast()) {
		return fmt.Errorf("endpoint %q: nothing can be dialled there", e)
	}
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (e Endpoint) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (e *Endpoint) UnmarshalText(b []byte) error {
	p, err := Parse(string(b))
	if err != nil {
		return err
	}
	*e = p
	return nil
}

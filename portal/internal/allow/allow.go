// Package allow holds a portal's own lists of what it may dial and where it
// may listen. They stand above every grant: the word of the portal's owner
// wins over the server's.
//
// A rule is one of
//
//	tcp://10.0.0.5:80         this endpoint
//	tcp://db.lan:5432         this name and port, as a grant writes it
//	tcp://10.0.0.5:*          any port of this host
//	tcp://10.0.0.0/8:*        any port of these addresses (also with one port)
//	tcp://[2001:db8::/32]:443 the same for IPv6
//	unix:///run/app.sock      this socket
//	unix:///run/app/*         any socket directly in this folder
//	stdio:                    "netport-portal connect" (listeners only)
//
// with tcp or udp before the colon.
package allow

import (
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"github.com/netport/netport/proto/address"
	"github.com/netport/netport/proto/endpoint"
)

// Rule admits some endpoints. Make one with Parse.
type Rule struct {
	text   string
	scheme endpoint.Scheme
	exact  endpoint.Endpoint // set: this one and no other
	prefix netip.Prefix      // of an address rule, exact ones included
	host   string            // name of a rule with a name and any port
	port   uint16            // 0: any
	folder string            // of a Unix rule with *
}

// Parse reads a rule.
func Parse(s string) (Rule, error) {
	r, err := parse(s)
	if err != nil {
		return Rule{}, fmt.Errorf("rule %q: %w", s, err)
	}
	r.text = s
	return r, nil
}

func parse(s string) (Rule, error) {
	if dir, ok := strings.CutSuffix(s, "/*"); ok && strings.HasPrefix(s, "unix://") {
		e, err := endpoint.Parse(dir)
		return Rule{scheme: endpoint.Unix, folder: e.Path()}, err
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || endpoint.Scheme(scheme) == endpoint.Unix {
		e, err := endpoint.Parse(s)
		return Rule{scheme: e.Scheme(), exact: e}, err
	}
	i := strings.LastIndexByte(rest, ':')
	if i < 0 {
		return Rule{}, fmt.Errorf("no port: write %s://HOST:PORT, or %s://HOST:* for any port", scheme, scheme)
	}
	host, port := rest[:i], rest[i+1:]
	if !strings.Contains(host, "/") {
		return parseHost(s, scheme, host, port)
	}
	r := Rule{scheme: endpoint.Scheme(scheme)}
	if r.scheme != endpoint.TCP && r.scheme != endpoint.UDP {
		return Rule{}, fmt.Errorf("unknown scheme %q: use tcp, udp, unix or stdio", scheme)
	}
	inner, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		inner = strings.TrimSuffix(inner, "]")
	}
	p, err := netip.ParsePrefix(inner)
	switch {
	case err != nil:
		return Rule{}, fmt.Errorf("%q is not a prefix: write it like 10.0.0.0/8 or [2001:db8::/32]", host)
	case p.Addr().Is6() != bracketed:
		return Rule{}, fmt.Errorf("%q: an IPv6 prefix, and only that, stands in brackets", host)
	case p.Addr().Is4In6():
		return Rule{}, fmt.Errorf("%q is an IPv4 prefix in IPv6 clothes: write it as IPv4", host)
	case p.Masked() != p:
		return Rule{}, fmt.Errorf("prefix %q has bits after its length: write %s", host, p.Masked())
	}
	r.prefix = p
	if port != "*" {
		if r.port, err = parsePort(port); err != nil {
			return Rule{}, err
		}
	}
	return r, nil
}

// parseHost reads a rule of one host, s as a whole.
func parseHost(s, scheme, host, port string) (Rule, error) {
	any := port == "*"
	if any { // every endpoint needs a port; this one is not looked at
		s = scheme + "://" + host + ":1"
	}
	e, err := endpoint.Parse(s)
	if err != nil {
		return Rule{}, err
	}
	r := Rule{scheme: e.Scheme(), host: e.Host(), port: e.Port()}
	if ap, ok := e.AddrPort(); ok {
		r.prefix = netip.PrefixFrom(ap.Addr(), ap.Addr().BitLen())
	}
	if any {
		r.port = 0
	} else {
		r.exact = e
	}
	return r, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("port %q is neither a number from 1 to 65535 nor *", s)
	}
	return uint16(n), nil
}

// String returns the rule as it was written.
func (r Rule) String() string { return r.text }

// admits reports whether the rule admits e as it is written.
func (r Rule) admits(e endpoint.Endpoint) bool {
	switch {
	case e.Scheme() != r.scheme:
		return false
	case !r.exact.IsZero():
		return r.exact == e
	case r.folder != "":
		return path.Dir(e.Path()) == r.folder
	case r.port != 0 && r.port != e.Port():
		return false
	}
	if ap, ok := e.AddrPort(); ok {
		return r.prefix.IsValid() && r.prefix.Contains(ap.Addr())
	}
	return r.host == e.Host()
}

// names reports whether the rule is about addresses of the kind k and no
// others: so 127.0.0.0/8 names loopback, and 0.0.0.0/0 does not. A metadata
// service is named by its one address only.
func (r Rule) names(k address.Kind) bool {
	return r.prefix.IsValid() &&
		address.KindOf(r.prefix.Addr()) == k && address.KindOf(lastOf(r.prefix)) == k &&
		(k != address.Metadata || r.prefix.IsSingleIP())
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

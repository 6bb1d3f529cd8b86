package allow

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/netport/netport/proto/address"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/wire"
)

// List is the rules of one purpose. The zero List is one that its owner did
// not write: it leaves the word to the grants. A List without rules that was
// written admits nothing.
type List struct {
	rules   []Rule
	written bool
}

// NewList returns the list of these rules, written by the owner.
func NewList(rules ...Rule) List { return List{rules: rules, written: true} }

// Denied says why a list admits something not.
type Denied struct {
	Reason wire.Reason // ReasonLocalList or ReasonForbidden
	Text   string
}

func (d *Denied) Error() string { return d.Text }

func deny(reason wire.Reason, format string, args ...any) error {
	return &Denied{reason, fmt.Sprintf(format, args...)}
}

func (l List) admits(e endpoint.Endpoint) bool {
	return slices.ContainsFunc(l.rules, func(r Rule) bool { return r.admits(e) })
}

// Listen reports, as a *Denied, why the portal may not listen at e.
func (l List) Listen(e endpoint.Endpoint) error {
	if l.written && !l.admits(e) {
		return deny(wire.ReasonLocalList, "%s is not in the [listen] list of this portal's config", e)
	}
	return nil
}

// Target reports, as a *Denied, why the portal may not dial e. Where e has a
// name, its addresses must pass Answers too.
//
//   - Loopback is dialled where the target is written as an address.
//   - Metadata, link-local, multicast, unspecified and reserved addresses are
//     never dialled, unless a rule is about just such addresses.
func (l List) Target(e endpoint.Endpoint) error {
	if localhost(e.Host()) {
		return deny(wire.ReasonForbidden, "%s is this machine by name, which is never dialled: write tcp://127.0.0.1:%d", e, e.Port())
	}
	ap, literal := e.AddrPort()
	if literal {
		kind := address.KindOf(ap.Addr())
		plain := kind == address.Ordinary || ap.Addr().IsLoopback() && !l.written
		if !plain {
			named := func(r Rule) bool { return r.admits(e) && r.names(kind) }
			if !slices.ContainsFunc(l.rules, named) {
				return deny(wire.ReasonForbidden, "%s is a %s address, which is dialled only where the [dial] list names it outright", e, kind)
			}
		}
	}
	if l.written && (literal || e.Scheme() == endpoint.Unix) && !l.admits(e) {
		return deny(wire.ReasonLocalList, "%s is not in the [dial] list of this portal's config", e)
	}
	return nil
}

// Outright reports whether the portal may dial e, without asking what its name
// resolves to.
func (l List) Outright(e endpoint.Endpoint) bool {
	return l.Target(e) == nil && (!l.written || l.admits(e))
}

// Answers reports, as a *Denied, why the portal may not dial e, whose name
// resolved to addrs. One forbidden address among them refuses the name whole:
// whoever can put it there can put it alone. No rule helps against that: what
// a name leads to is in the hands of whoever answers for it.
func (l List) Answers(e endpoint.Endpoint, addrs []netip.Addr) error {
	for _, a := range addrs {
		if kind := address.KindOf(a); kind != address.Ordinary {
			return deny(wire.ReasonForbidden, "%s resolves to %s, a %s address, which is never dialled by name", e, a, kind)
		}
	}
	if !l.written || l.admits(e) {
		return nil
	}
	for _, a := range addrs {
		if !l.admits(endpoint.FromAddrPort(e.Scheme(), netip.AddrPortFrom(a, e.Port()))) {
			return deny(wire.ReasonLocalList, "%s resolves to %s, and neither is in the [dial] list of this portal's config", e, a)
		}
	}
	return nil
}

// localhost reports whether a name means this machine without asking anyone
// (RFC 6761 section 6.3), or by the custom of hosts files.
func localhost(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	switch name {
	case "localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback", "localhost4", "localhost6":
		return true
	}
	return strings.HasSuffix(name, ".localhost")
}

package direct

import (
	"net/netip"
	"slices"

	"github.com/netport/netport/proto/address"
)

// minPort is the lowest port that is probed: below are services of others.
const minPort = 1024

// bounds is what candidates of a peer are judged by.
type bounds struct {
	loopback bool             // the peer is on this machine
	own      []netip.AddrPort // of this portal: it need not probe itself
	infra    []netip.Addr     // the server's and the relays'
}

func (b bounds) equal(o bounds) bool {
	return b.loopback == o.loopback && slices.Equal(b.own, o.own) && slices.Equal(b.infra, o.infra)
}

// refuses says why nothing is ever sent to an address; "": it may be probed. A peer
// names addresses, and comes from some, that may be anybody's: what is no host of a
// network is never probed, nor what this portal talks to in other ways.
func (b bounds) refuses(a netip.AddrPort) string {
	kind := address.KindOf(a.Addr())
	switch {
	case kind == address.Loopback && b.loopback:
	case kind != address.Ordinary:
		return "a " + kind.String() + " address"
	}
	switch {
	case a.Port() < minPort:
		return "a port below 1024"
	case slices.Contains(b.own, a):
		return "an address of this portal"
	case kind != address.Loopback && slices.Contains(b.infra, a.Addr()):
		return "an address of the server or a relay"
	}
	return ""
}

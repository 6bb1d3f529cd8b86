package grants

import (
	"net/netip"
	"slices"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// Tightened returns why what runs under a pair must not go on as it is, where new
// terms have come: clients that are none any more, paths that may not be used, or
// bytes that were not counted so far and are to be. What runs is cut then, and
// begins anew by the terms of now. ReasonNone: it goes on. (Terms that are wider,
// and limits that are only changed, take effect as they are.)
func (c Change) Tightened() wire.Reason {
	if c.Kind != Renew {
		return wire.ReasonNone
	}
	was, now := c.Before.Terms, c.Grant.Terms
	switch {
	case now.Direct != was.Direct && now.Direct != grant.DirectAny:
		return wire.ReasonNotDirect
	case !covers(now.Clients, was.Clients):
		return wire.ReasonClientForbidden
	case (now.Rate != 0 || now.Month != 0) && was.Rate == 0 && was.Month == 0:
		return wire.ReasonLimit
	}
	return wire.ReasonNone
}

// covers reports whether all of b may connect where a may.
func covers(a, b grant.Clients) bool {
	if a.IsZero() || a == b {
		return true
	}
	outer := a.Prefixes()
	return !b.IsZero() && !slices.ContainsFunc(b.Prefixes(), func(p netip.Prefix) bool {
		return !slices.ContainsFunc(outer, func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Contains(p.Addr()) })
	})
}

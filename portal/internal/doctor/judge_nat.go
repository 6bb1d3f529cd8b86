package doctor

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/netport/netport/portal/internal/outside"
)

// judgeNAT says how the NAT maps, from where relays see one socket of this machine.
func judgeNAT(r *Report, f Facts) {
	const what = "NAT"
	var list []outside.Sighting
	by := make(map[netip.AddrPort]string) // relays that have seen it
	for _, o := range f.Relays {
		if o.Mapped.IsValid() {
			s := outside.Sighting{By: netip.AddrPortFrom(o.Addr, o.UDPPort), At: o.Mapped}
			if list = append(list, s); by[s.At] == "" {
				by[s.At] = o.Name
			}
		}
	}
	mapping, at := outside.Judge(list, func(a netip.Addr) bool { return f.Local[a] })
	text := mapping.String()
	switch mapping {
	case outside.Unknown:
		text += ": no relay has said over UDP where it sees this machine's IPv4 address"
	case outside.None:
		text += fmt.Sprintf(": relays see this machine at its own address %s", at[0].Addr())
	case outside.Some:
		text += fmt.Sprintf(", for that takes two relays: its address is %s", at[0].Addr())
	case outside.EndpointIndependent:
		text += fmt.Sprintf(": %s from wherever it is seen", at[0])
	default:
		var places []string
		for _, a := range at[:2] {
			places = append(places, fmt.Sprintf("%s at relay %s", a, by[a]))
		}
		text += ": " + strings.Join(places, ", ")
	}
	if mapping > outside.None {
		text += "; its filtering is unknown, for relays answer from no second address"
	}
	r.add(what, OK, text, "")
}

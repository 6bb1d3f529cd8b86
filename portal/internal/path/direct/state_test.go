package direct

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/netport/netport/proto/wire"
)

// What is shown of an address follows what happens there.
func TestStateSaysHowEachAddressStands(t *testing.T) {
	p := newPortal(t, true, nil, nobody)
	silent := newTalker(t, p)
	at := silent.conn.LocalAddr().(interface{ String() string }).String()
	p.Peer([]wire.Candidate{
		{Transport: wire.CandidateUDP, Origin: wire.OriginHost, Addr: netip.MustParseAddrPort(at)},
		{Transport: wire.CandidateUDP, Origin: wire.OriginReflexive, Addr: netip.MustParseAddrPort("169.254.169.254:8000")},
		{Transport: wire.CandidateTCP, Origin: wire.OriginMapped, Addr: netip.MustParseAddrPort("127.0.0.1:80")},
		{Transport: wire.CandidateTransport(9), Origin: wire.OriginHost, Addr: netip.MustParseAddrPort("192.0.2.1:2000")},
	})
	s := p.State()
	if len(s.Tries) != 1 || s.Tries[0].Addr.String() != at || s.Tries[0].Use != "asking" || s.Tries[0].Origin != wire.OriginHost {
		t.Errorf("addresses: %+v", s.Tries)
	}
	if len(s.Refused) != 2 || s.Refused[0].Why != "a metadata address" || s.Refused[1].Why != "a port below 1024" {
		t.Errorf("refused: %+v", s.Refused)
	}
	eventually(t, "it has been asked in vain", func() bool {
		x := p.State().Tries[0]
		return x.Use == "no answer" && x.Asked >= burst && x.Answered == 0 && !x.Heard
	})
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	eventually(t, "this portal's addresses are named, and the port of TCP where the server sees it", func() bool {
		var want []wire.Candidate
		for transport, at := range map[wire.CandidateTransport]netip.AddrPort{
			wire.CandidateUDP: netip.AddrPortFrom(loopback, p.finder.port(loopback).Local()),
			wire.CandidateTCP: netip.AddrPortFrom(loopback, p.finder.door(loopback).port),
		} {
			want = append(want, wire.Candidate{Transport: transport, Origin: wire.OriginHost, Addr: at})
		}
		seen := netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), p.finder.door(loopback).port)
		want = append(want, wire.Candidate{Transport: wire.CandidateTCP, Origin: wire.OriginReflexive, Addr: seen})
		own := p.State().Own
		return !slices.ContainsFunc(want, func(c wire.Candidate) bool { return !slices.Contains(own, c) })
	})
	silent.say(silent.ask(1))
	eventually(t, "the peer was heard from there", func() bool { return p.State().Tries[0].Heard })
}

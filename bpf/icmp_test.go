//go:build linux

package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
)

// router is who reports an error, somewhere behind the gateway.
func router(v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr("2001:db8:ffff::1")
	}
	return netip.MustParseAddr("192.0.2.1")
}

// report is an error about a segment that the relay sent to leg 1 for leg 0, of which
// the router quotes the first bytes as it saw them, and translated what leg 0 gets.
func (p *peers) report(v6 bool, kind, code uint8, rest uint32, quoted int) icmpError {
	s := p.leaving(p.arriving(0, pattern(200)))
	s.ttl = 3
	return icmpError{
		toMAC: p.mac(0), fromMAC: gateway, from: router(v6), to: p.local[1].Addr(), ttl: 40,
		kind: kind, code: code, rest: rest, quote: s.frame()[ethernetHeader:][:quoted],
	}
}

func (p *peers) translated(e icmpError) icmpError {
	s := p.arriving(0, pattern(200))
	s.ttl = 3 // the quote keeps it
	e.quote = s.frame()[ethernetHeader:][:len(e.quote)]
	e.toMAC, e.fromMAC = e.fromMAC, e.toMAC
	e.from, e.to = p.local[0].Addr(), p.remote[0].Addr()
	e.ttl--
	return e
}

func headerOf(v6 bool) int {
	if v6 {
		return 40
	}
	return 20
}

// TestTranslatesErrors: the leg must find in an error what it sent itself.
func TestTranslatesErrors(t *testing.T) {
	const unreachable4, exceeded4, parameter4 = 3, 11, 12
	both(t, func(r *rig, h hook) {
		cases(r, func(p *peers, name string) {
			v6 := p.local[0].Addr().Is6()
			type report struct {
				kind, code uint8
				rest, want uint32
			}
			reports := []report{{exceeded4, 0, 0, 0}, {parameter4, 0, 20 << 24, 20 << 24}}
			for code := range uint8(16) {
				reports = append(reports, report{unreachable4, code, 1400, 1400})
			}
			for mtu, want := range map[uint32]uint32{0: 576, 68: 576, 575: 576, 576: 576, 577: 577, 1280: 1280, 65535: 65535} {
				reports = append(reports, report{unreachable4, 4, mtu, want})
			}
			if v6 {
				reports = []report{{3, 0, 0, 0}, {4, 1, 6, 6}}
				for code := range uint8(8) {
					reports = append(reports, report{1, code, 0, 0})
				}
				for mtu, want := range map[uint32]uint32{0: 1280, 68: 1280, 1279: 1280, 1280: 1280, 1281: 1281, 9000: 9000, 1 << 31: 1 << 31} {
					reports = append(reports, report{2, 0, mtu, want})
				}
			}
			before := p.slotOf()
			for _, c := range reports {
				// The ports and a little, up to the checksum of TCP, with it, more. (Half of it cannot be made right.)
				for _, beyond := range []int{8, 9, 16, 18, 19, 20, 150} {
					p.put(p.Slots, p.slot, before)
					e := p.report(v6, c.kind, c.code, c.rest, headerOf(v6)+beyond)
					want := p.translated(e)
					want.rest = c.want
					what := fmt.Sprintf("%s: type %d code %d with %d, %d bytes quoted", name, c.kind, c.code, c.rest, beyond)
					r.wants(h, what, e.frame(), sent, want.frame(), nil)
					after := p.slotOf()
					after.From[1].ErrorDue = 0
					if after != before {
						t.Errorf("%s: counted as traffic: %+v", what, after)
					}
				}
			}
			p.put(p.Slots, p.slot, before)
			e := p.report(v6, reports[0].kind, 0, 0, headerOf(v6)+8)
			r.wants(h, name+", padded", append(e.frame(), 1, 2, 3), sent, p.translated(e).frame(), nil)
		})
	})
}

// TestErrorsForTheStack are those that are not about what the relay sent for a flow.
func TestErrorsForTheStack(t *testing.T) {
	both(t, func(r *rig, h hook) {
		cases(r, func(p *peers, name string) {
			v6 := p.local[0].Addr().Is6()
			kind, quotedPorts := uint8(3), ethernetHeader+20+8+20
			if v6 {
				kind, quotedPorts = 1, ethernetHeader+40+8+40
			}
			quoteAt := quotedPorts - headerOf(v6)
			protocolAt := quoteAt + 9
			if v6 {
				protocolAt = quoteAt + 6
			}
			for what, change := range map[string]func(e *icmpError, b []byte) []byte{
				"echo":                    func(_ *icmpError, b []byte) []byte { b[quoteAt-8] = map[bool]byte{false: 8, true: 128}[v6]; return b },
				"a type that is no error": func(_ *icmpError, b []byte) []byte { b[quoteAt-8] = 5; return b },
				"a quote cut off before the ports": func(e *icmpError, _ []byte) []byte {
					e.quote = e.quote[:headerOf(v6)+7]
					return e.frame()
				},
				"a quote cut off in its header": func(e *icmpError, _ []byte) []byte { e.quote = e.quote[:15]; return e.frame() },
				"no quote":                      func(e *icmpError, _ []byte) []byte { e.quote = nil; return e.frame() },
				"a quote of another port":       func(_ *icmpError, b []byte) []byte { b[quotedPorts+3] ^= 1; return b },
				"a quote of another relay port": func(_ *icmpError, b []byte) []byte { b[quotedPorts+1] ^= 1; return b },
				"a quote of no session port":    func(_ *icmpError, b []byte) []byte { b[quotedPorts] = 0xf0; return b },
				"a quote of another address":    func(_ *icmpError, b []byte) []byte { b[quotedPorts-1] ^= 1; return b },
				"a quote of what another sent":  func(e *icmpError, b []byte) []byte { b[quotedPorts-e.to.BitLen()/8-1] ^= 1; return b },
				"a quote of ICMP":               func(_ *icmpError, b []byte) []byte { b[protocolAt] = protocolICMP; return b },
				"a quote of ICMPv6":             func(_ *icmpError, b []byte) []byte { b[protocolAt] = protocolICMPv6; return b },
				"a quote of the other protocol": func(_ *icmpError, b []byte) []byte { b[protocolAt] ^= byte(TCP) ^ byte(UDP); return b },
				"a quote of another version":    func(_ *icmpError, b []byte) []byte { b[quoteAt] ^= 0x20; return b },
				"an error about an error": func(e *icmpError, _ []byte) []byte {
					inner := *e
					inner.from, inner.to = e.to, e.from
					e.quote = inner.frame()[ethernetHeader:]
					return e.frame()
				},
				"to another address of the relay": func(e *icmpError, _ []byte) []byte { e.to = relayAddr(1, v6); return e.frame() },
				"to another host":                 func(e *icmpError, _ []byte) []byte { e.to = hostAddr(1, v6); return e.frame() },
				"in a frame to another host":      func(_ *icmpError, b []byte) []byte { b[5] ^= 1; return b },
				"from a source that no host has": func(e *icmpError, _ []byte) []byte {
					e.from = netip.MustParseAddr(map[bool]string{false: "127.0.0.1", true: "::1"}[v6])
					return e.frame()
				},
				"longer than its frame": func(_ *icmpError, b []byte) []byte { return b[:len(b)-1] },
			} {
				e := p.report(v6, kind, 0, 0, headerOf(v6)+8)
				b := e.frame()
				r.wants(h, name+": "+what, change(&e, b), passed, nil, nil)
			}
			if !v6 {
				e := p.report(v6, kind, 0, 0, 28)
				for what, change := range map[string]func(b []byte){
					"fragment":                    func(b []byte) { b[atIPv4+6] = 0x20; fixIPv4(b[atIPv4:]) },
					"with a wrong sum":            func(b []byte) { b[atIPv4+10] ^= 1 },
					"a quote of a later fragment": func(b []byte) { b[quoteAt+7] = 1 },
					"a quote with options":        func(b []byte) { b[quoteAt] = 0x46 },
				} {
					b := e.frame()
					change(b)
					r.wants(h, name+": "+what, b, passed, nil, nil)
				}
			}
			// The pair is gone, and the stack has no use for the error either.
			p.setSlot(relayDirection{Lifetime: 3600, Generation: 4})
			r.wants(h, name+": about a pair that was removed", p.report(v6, kind, 0, 0, headerOf(v6)+8).frame(), passed, nil, nil)
		})
	})
}

func TestErrorsAreLimited(t *testing.T) {
	both(t, func(r *rig, h hook) {
		cases(r, func(p *peers, name string) {
			v6 := p.local[0].Addr().Is6()
			e := p.report(v6, map[bool]uint8{false: 3, true: 1}[v6], 0, 0, headerOf(v6)+8)
			const storm = 2000
			got := 0
			began := monotonic(t)
			for range storm {
				if r.run(h, e.frame(), 0).outcome == sent {
					got++
				}
			}
			// Ten at once, then 100 a second, by a clock of at most 10 ms a tick.
			most := 10 + 2 + int((monotonic(t)-began)/10e6)
			drops := r.dropsOf()
			if got < 10 || got > most || drops[relayDropReasonDROP_RATE_LIMIT] != uint64(storm-got) || len(drops) != 1 {
				t.Errorf("%s: %d of %d errors were sent on, want 10 to %d; drops %v", name, got, storm, most, drops)
			}
			s := p.arriving(1, nil)
			r.wants(h, name+", traffic of that direction", s.frame(), sent, p.leaving(s).frame(), nil)
			for _, ttl := range []uint8{0, 1} {
				p.setSlot(relayDirection{Lifetime: 3600})
				e.ttl = ttl
				r.wants(h, fmt.Sprintf("%s, TTL %d", name, ttl), e.frame(), dropped, nil, counts{relayDropReasonDROP_TTL: 1})
			}
		})
	})
}

// TestErrorsFindTheirWay, too, where the legs are behind different interfaces.
func TestErrorsFindTheirWay(t *testing.T) {
	both(t, func(r *rig, h hook) {
		routes(r, func(p *peers, v6 bool) {
			// About what host 1 was sent for... the other way round: leg 0 is behind b.
			p.remote[0], p.remote[1] = p.remote[1], p.remote[0]
			p.local[0], p.local[1] = p.local[1], p.local[0]
			e := p.report(v6, map[bool]uint8{false: 3, true: 2}[v6], 4, 1400, headerOf(v6)+20)
			want := p.translated(e)
			want.toMAC, want.fromMAC = hostMAC, p.mac(1)
			r.wants(h, e.to.String(), e.frame(), sent, want.frame(), nil)
			r.forgets(v6)
			if h.name == "xdp" {
				r.wants(h, e.to.String(), e.frame(), dropped, nil, nil,
					r.event(relayEventKindEVENT_FORWARD, relayEventReasonREASON_NEIGHBOUR, 0, e.frame()))
			}
		})
	})
}

// TestWrongSumsStayWrong: what was wrong stays wrong by as much, so that the receiver sees it.
func TestWrongSumsStayWrong(t *testing.T) {
	both(t, func(r *rig, h hook) {
		cases(r, func(p *peers, name string) {
			v6 := p.local[0].Addr().Is6()
			at := ethernetHeader + headerOf(v6) + map[Protocol]int{UDP: 6, TCP: 16}[p.protocol]
			for _, wrong := range []uint16{1, 0x8000, 0x1234, 0xfffe} {
				s := p.arriving(0, pattern(33))
				frame := s.frame()
				check := binary.BigEndian.Uint16(frame[at:])
				binary.BigEndian.PutUint16(frame[at:], check+wrong)
				if check+wrong == 0 && p.protocol == UDP {
					continue // says that there is none
				}
				before := residue(s, frame[ethernetHeader+headerOf(v6):])
				got := r.run(h, frame, 0)
				if after := residue(p.leaving(s), got.frame[ethernetHeader+headerOf(v6):]); after != before || after == 0 {
					t.Errorf("%s: a sum that was wrong by %#x is wrong by %#x", name, before, after)
				}
			}
		})
	})
}

// residue is what the sum over a segment is off by: 0 if its checksum is right.
func residue(s segment, transport []byte) uint16 {
	return checksum(pseudo(s.from.Addr(), s.to.Addr(), uint8(s.protocol), len(transport)), transport)
}

package topo_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/lab/topo"
)

// observer is a public host with two UDP ports, to see a NAT from four endpoints with another.
type observer struct {
	host *topo.Host
	addr netip.Addr
	a, b *net.UDPConn
}

func observe(l *topo.Lab, name string) observer {
	host := l.Public(name)
	return observer{host: host, addr: host.Addr(), a: host.ListenUDP(1000), b: host.ListenUDP(2000)}
}

// seen sends one datagram from the inside socket to the outside one and returns the source it arrives with.
func seen(t *testing.T, from, to *net.UDPConn, addr netip.Addr) netip.AddrPort {
	t.Helper()
	send(t, from, "probe", netip.AddrPortFrom(addr, portOf(to)))
	_, source := receive(t, to)
	return source
}

// receive waits for one datagram.
func receive(t *testing.T, conn *net.UDPConn) (string, netip.AddrPort) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1500)
	n, source, err := conn.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n]), netip.AddrPortFrom(source.Addr().Unmap(), source.Port())
}

// send sends one datagram.
func send(t *testing.T, from *net.UDPConn, text string, to netip.AddrPort) {
	t.Helper()
	if _, err := from.WriteToUDPAddrPort([]byte(text), to); err != nil {
		t.Fatal(err)
	}
}

// mapping measures RFC 4787 section 4.1: how the outside endpoint of one inside socket depends on the peer.
func mapping(t *testing.T, inside *net.UDPConn, one, two observer) topo.Behaviour {
	t.Helper()
	first := seen(t, inside, one.a, one.addr)
	if again := seen(t, inside, one.a, one.addr); again != first {
		t.Errorf("one peer saw %v, then %v", first, again)
	}
	otherPort, otherAddr := seen(t, inside, one.b, one.addr), seen(t, inside, two.a, two.addr)
	if otherPort.Addr() != first.Addr() || otherAddr.Addr() != first.Addr() {
		t.Errorf("peers saw the addresses %v, %v and %v", first, otherPort, otherAddr)
	}
	switch {
	case first == otherPort && first == otherAddr:
		return topo.EndpointIndependent
	case first == otherPort:
		return topo.AddressDependent
	default:
		return topo.AddressAndPortDependent
	}
}

// filtering measures RFC 4787 section 5: who may answer an inside socket that has sent to one.a only.
func filtering(t *testing.T, inside *net.UDPConn, one, two observer) topo.Behaviour {
	t.Helper()
	outside := seen(t, inside, one.a, one.addr)
	send(t, two.a, "other address", outside)
	send(t, one.b, "other port", outside)
	send(t, one.a, "end", outside) // sent last, and always let in
	got := map[string]bool{}
	for !got["end"] {
		text, _ := receive(t, inside)
		got[text] = true
	}
	switch {
	case got["other address"] && got["other port"]:
		return topo.EndpointIndependent
	case got["other port"]:
		return topo.AddressDependent
	case got["other address"]:
		t.Error("another address was let in, another port was not")
		return 0
	default:
		return topo.AddressAndPortDependent
	}
}

// inside --- nat ---+-- inet --+--- one
//
//	+--- two
func TestNATsBehaveAsTheyAreDefined(t *testing.T) {
	t.Parallel()
	names := []string{"", "endpoint", "address", "address and port"}
	for m := topo.EndpointIndependent; m <= topo.AddressAndPortDependent; m++ {
		for f := topo.EndpointIndependent; f <= topo.AddressAndPortDependent; f++ {
			t.Run("mapping by "+names[m]+", filtering by "+names[f], func(t *testing.T) {
				l := topo.New(t)
				one, two := observe(l, "one"), observe(l, "two")
				nat := l.Router("nat", topo.NAT{Mapping: m, Filtering: f})
				inside := nat.Host("inside")
				if got := mapping(t, inside.ListenUDP(0), one, two); got != m {
					t.Errorf("mapping depends on the %s, want %s", names[got], names[m])
				}
				if got := filtering(t, inside.ListenUDP(0), one, two); got != f {
					t.Errorf("filtering depends on the %s, want %s", names[got], names[f])
				}
			})
		}
	}
}

// A portal that listens and does not dial out cannot be reached, whatever the NAT: nothing has made a mapping.
func TestListenerBehindNATIsUnreachableWithoutDialling(t *testing.T) {
	t.Parallel()
	for name, nat := range map[string]topo.NAT{"full cone": topo.FullCone, "port restricted": topo.PortRestricted, "symmetric": topo.Symmetric} {
		t.Run(name, func(t *testing.T) {
			l := topo.New(t)
			outside := l.Public("outside")
			home := l.Router("home", nat)
			inside := home.Host("inside")
			inside.Listen(7000)
			listening := inside.ListenUDP(7000)
			if passesTCP(t, outside.Node, home.Node, 7000, false) {
				t.Error("reached over TCP")
			}
			if passesUDP(t, outside.ListenUDP(0), listening, home.Addr(), false) {
				t.Error("reached over UDP")
			}
			outside.Listen(80)
			if !passesTCP(t, inside.Node, outside.Node, 80, true) {
				t.Error("the inside host cannot dial out, so that the test shows nothing")
			}
		})
	}
}

// punch makes two inside hosts send to each other's outside endpoint, which a public host has told them, a first and then
// b, and answer to where they hear the other from. It says whether both heard the other.
func punch(t *testing.T, natA, natB topo.NAT) bool {
	t.Helper()
	l := topo.New(t)
	server := observe(l, "server")
	a := l.Router("nat-a", natA).Host("a").ListenUDP(0)
	b := l.Router("nat-b", natB).Host("b").ListenUDP(0)
	atA, atB := seen(t, a, server.a, server.addr), seen(t, b, server.a, server.addr)
	toA, toB := atA, atB // where the other sends
	heardA, heardB := false, false
	for range 3 {
		// The first datagram of a reaches b's NAT before b has sent to a: it must be dropped without a trace.
		send(t, a, "from a", toB)
		send(t, b, "from b", toA)
		send(t, server.a, "end", atA)
		send(t, server.a, "end", atB)
		for text, from := receive(t, a); text != "end"; text, from = receive(t, a) {
			heardA, toB = true, from
		}
		for text, from := receive(t, b); text != "end"; text, from = receive(t, b) {
			heardB, toA = true, from
		}
	}
	return heardA && heardB
}

func TestHolePunching(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		a, b topo.NAT
		want bool
	}{
		{"full cone, full cone", topo.FullCone, topo.FullCone, true},
		{"restricted, restricted", topo.RestrictedCone, topo.RestrictedCone, true},
		{"port restricted, port restricted", topo.PortRestricted, topo.PortRestricted, true},
		{"full cone, symmetric", topo.FullCone, topo.Symmetric, true},
		{"restricted, symmetric", topo.RestrictedCone, topo.Symmetric, true},
		{"port restricted, symmetric", topo.PortRestricted, topo.Symmetric, false},
		{"symmetric, symmetric", topo.Symmetric, topo.Symmetric, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := punch(t, tt.a, tt.b); got != tt.want {
				t.Errorf("hole punching works: %t, want %t", got, tt.want)
			}
			if tt.a != tt.b {
				if got := punch(t, tt.b, tt.a); got != tt.want {
					t.Errorf("hole punching works the other way round: %t, want %t", got, tt.want)
				}
			}
		})
	}
}

// inside --- home (NAT) --- isp (NAT) --- inet --- one, two
func TestCarrierGradeNATIsAsStrictAsItsStrictest(t *testing.T) {
	l := topo.New(t)
	one, two := observe(l, "one"), observe(l, "two")
	isp := l.Router("isp", topo.Symmetric, topo.LAN("100.64.0.0/24"))
	home := isp.Router("home", topo.FullCone)
	inside := home.Host("inside")
	if got := seen(t, inside.ListenUDP(0), one.a, one.addr).Addr(); got != isp.Addr() {
		t.Errorf("the public host saw %v, want the outer NAT %v", got, isp.Addr())
	}
	if got := mapping(t, inside.ListenUDP(0), one, two); got != topo.AddressAndPortDependent {
		t.Errorf("mapping %v, want the outer NAT's", got)
	}
	if got := filtering(t, inside.ListenUDP(0), one, two); got != topo.AddressAndPortDependent {
		t.Errorf("filtering %v, want the outer NAT's", got)
	}
	if home.Addr() != netip.MustParseAddr("100.64.0.2") {
		t.Errorf("the inner NAT has the address %v", home.Addr())
	}
}

// Two hosts behind one NAT hear each other by their outside endpoints, which they see, if the NAT hairpins; also where the
// one that hears has sent to nobody but the public host.
func TestHairpin(t *testing.T) {
	t.Parallel()
	for name, hairpin := range map[string]bool{"on": true, "off": false} {
		t.Run(name, func(t *testing.T) {
			l := topo.New(t)
			one := observe(l, "one")
			nat := topo.PortRestricted
			nat.Hairpin = hairpin
			isp := l.Router("isp", nat)
			a, b := isp.Host("a").ListenUDP(0), isp.Host("b").ListenUDP(0)
			atA, atB := seen(t, a, one.a, one.addr), seen(t, b, one.a, one.addr)
			for _, way := range []struct {
				from, to *net.UDPConn
				at, seen netip.AddrPort
			}{{a, b, atB, atA}, {b, a, atA, atB}} {
				send(t, way.from, "hairpin", way.at)
				send(t, one.a, "end", way.at)
				text, from := receive(t, way.to)
				if hairpin && (text != "hairpin" || from != way.seen) {
					t.Errorf("heard %q from %v, want it by %v", text, from, way.seen)
				}
				if !hairpin && text != "end" {
					t.Errorf("heard %q from %v", text, from)
				}
			}
		})
	}
}

func TestForgottenMappingIsMadeAnew(t *testing.T) {
	l := topo.New(t)
	one, _ := observe(l, "one"), observe(l, "two")
	home := l.Router("home", topo.Symmetric)
	inside := home.Host("inside").ListenUDP(0)
	before := seen(t, inside, one.a, one.addr)
	home.ForgetMappings()
	send(t, one.a, "too late", before)
	after := seen(t, inside, one.a, one.addr)
	if after == before {
		t.Errorf("the NAT still maps to %v", before)
	}
	send(t, one.a, "in time", after)
	if text, _ := receive(t, inside); text != "in time" {
		t.Errorf("heard %q through a forgotten mapping", text)
	}
}

func TestUDPTimeoutEndsAMapping(t *testing.T) {
	l := topo.New(t)
	one, two := observe(l, "one"), observe(l, "two")
	nat := topo.FullCone
	nat.UDPTimeout = time.Second
	inside := l.Router("home", nat).Host("inside").ListenUDP(0)
	outside := seen(t, inside, one.a, one.addr)
	// Datagrams from outside must not keep it alive. Each comes from a socket of its own, or the kernel would remember it.
	for deadline := time.Now().Add(10 * time.Second); ; {
		probe := two.host.ListenUDP(0)
		send(t, probe, "probe", outside)
		if err := inside.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := inside.ReadFromUDPAddrPort(make([]byte, 100)); isTimeout(err) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatal("the mapping lives on without traffic from inside")
		}
	}
}

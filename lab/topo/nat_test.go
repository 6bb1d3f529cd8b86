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
	addr netip.Addr
	a, b *net.UDPConn
}

func observe(l *topo.Lab, name string) observer {
	host := l.Public(name)
	return observer{addr: host.Addr(), a: host.ListenUDP(1000), b: host.ListenUDP(2000)}
}

// seen sends one datagram from the inside socket to the outside one and returns the source it arrives with.
func seen(t *testing.T, from, to *net.UDPConn, addr netip.Addr) netip.AddrPort {
	t.Helper()
	port := to.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	if _, err := from.WriteToUDPAddrPort([]byte("probe"), netip.AddrPortFrom(addr, port)); err != nil {
		t.Fatal(err)
	}
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

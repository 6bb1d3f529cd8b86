package doctor

import (
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

// sky is the UDP network of a bubble: a socket, and relays behind a NAT that maps.
type sky struct {
	net.PacketConn
	relays  map[netip.AddrPort]*relayBehind
	answers chan packet
	expired chan struct{} // closed when the read deadline has passed
	timer   *time.Timer
}

type packet struct {
	b    []byte
	from netip.AddrPort
}

// relayBehind is a relay, as package leg has it, that sees the portal at mapped.
type relayBehind struct {
	gate   *leg.Gate
	secret wire.Secret
	mapped netip.AddrPort
	lost   int // requests that the way loses, the first ones
	bound  int
	noWay  bool // by the machine's own word
}

func newSky() *sky {
	return &sky{relays: make(map[netip.AddrPort]*relayBehind), answers: make(chan packet, 16), expired: make(chan struct{})}
}

func (s *sky) WriteTo(b []byte, to net.Addr) (int, error) {
	at := addrPort(to)
	r := s.relays[at]
	if r == nil {
		return len(b), nil
	}
	if r.noWay {
		return 0, syscall.ENETUNREACH
	}
	if r.lost--; r.lost >= 0 {
		return len(b), nil
	}
	q, err := leg.ParseRequest(b)
	if err != nil {
		return 0, err
	}
	verdict, answer := r.gate.Judge(time.Now(), q, r.mapped, r.secret, leg.Binding{})
	if verdict == leg.Bind {
		r.bound++
	}
	if answer != nil {
		time.AfterFunc(30*time.Millisecond, func() { s.answers <- packet{answer, at} })
	}
	return len(b), nil
}

func (s *sky) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-s.answers:
		return copy(b, p.b), net.UDPAddrFromAddrPort(p.from), nil
	case <-s.expired:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

func (s *sky) SetReadDeadline(at time.Time) error {
	if s.timer != nil {
		s.timer.Stop()
	}
	expired := make(chan struct{})
	s.expired = expired
	s.timer = time.AfterFunc(time.Until(at), func() { close(expired) })
	return nil
}

// TestRelaysAreAskedOverOneSocket: who answers is timed and says where it sees the machine, what is lost is said again, a
// ticket in use is not bound, who cannot be reached is not waited for, and who is silent ends the wait after stepTime.
func TestRelaysAreAskedOverOneSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSky()
		asked := func(addr string, whole bool) *ask {
			a := &ask{relay: &Relay{Name: addr, Addr: netip.MustParseAddr(addr), UDPPort: 3478}, whole: whole}
			a.ticket.Session[0], a.ticket.Secret[0] = 1, byte(len(s.relays)+1)
			return a
		}
		answers := func(a *ask, mapped string, lost int) *relayBehind {
			r := &relayBehind{gate: leg.NewGate(), secret: a.ticket.Secret, mapped: netip.MustParseAddrPort(mapped), lost: lost}
			s.relays[netip.AddrPortFrom(a.relay.Addr, 3478)] = r
			return r
		}
		whole, lossy, used, silent := asked("192.0.2.1", true), asked("192.0.2.2", true), asked("192.0.2.3", false), asked("192.0.2.4", true)
		answers(whole, "198.51.100.7:40000", 0)
		answers(lossy, "198.51.100.7:40000", 2)
		inUse := answers(used, "198.51.100.7:40000", 0)
		began := time.Now()
		bind(t.Context(), s, []*ask{whole, lossy, used})
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v where all relays answer", took)
		}
		for _, a := range []*ask{whole, lossy, used} {
			if a.relay.UDP.Fault != None || a.relay.UDP.Took != 30*time.Millisecond {
				t.Errorf("relay %s: %+v, want a round trip of 30 ms", a.relay.Name, a.relay.UDP)
			}
			if want := a.whole; a.relay.Mapped.IsValid() != want {
				t.Errorf("relay %s: seen at %v", a.relay.Name, a.relay.Mapped)
			}
		}
		if inUse.bound != 0 {
			t.Error("the leg of a ticket in use was moved")
		}
		away := asked("192.0.2.5", true)
		answers(away, "198.51.100.7:40000", 0).noWay = true
		began = time.Now()
		bind(t.Context(), s, []*ask{away})
		if took := time.Since(began); took != 0 || away.relay.UDP.Fault != Unreachable {
			t.Errorf("after %v: %+v, want at once that there is no way", took, away.relay.UDP)
		}
		began = time.Now()
		bind(t.Context(), s, []*ask{silent})
		if took := time.Since(began); took != stepTime || silent.relay.UDP.Fault != Silent {
			t.Errorf("after %v: %+v, want silence for %v", took, silent.relay.UDP, stepTime)
		}
	})
}

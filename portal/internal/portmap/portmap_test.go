package portmap

import (
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

// nowhere is a port that nobody has.
func nowhere(t *testing.T) uint16 {
	conn, port := listenUDP(t, here.gateway)
	conn.Close()
	return port
}

func TestRouterIsSpokenToInItsProtocol(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"PCP", "NAT-PMP", "UPnP IGD"} {
		t.Run(protocol, func(t *testing.T) {
			var r *running
			var count func() int
			external := uint16(4001)
			if protocol == "UPnP IGD" {
				b := newBox(t, nil)
				r, count, external = run(t, nowhere(t), b.ssdp, udp, tcp), b.count, 4000
			} else {
				h := newHome(t, protocol == "NAT-PMP")
				r, count = run(t, h.port, nowhere(t), udp, tcp), h.count
			}
			s := r.wait(2)
			if s.Protocol != protocol || s.Gateway != here.gateway || s.Why != "" {
				t.Errorf("state = %+v", s)
			}
			if got, want := r.Candidates()[0], (wire.Candidate{Transport: wire.CandidateUDP, Origin: wire.OriginMapped, Addr: netip.AddrPortFrom(netip.MustParseAddr("20.0.1.1"), external)}); got != want {
				t.Errorf("candidate = %v, want %v", got, want)
			}
			if got := s.Mappings[1].Lease; got != lease {
				t.Errorf("lease = %v, want the %v that were asked for", got, lease)
			}
			r.Keep([]Port{tcp})
			r.wait(1)
			if got := count(); got != 1 {
				t.Errorf("the router maps %d ports, want that alone which is wanted", got)
			}
			r.stop()
			if got := count(); got != 0 {
				t.Errorf("the router maps %d ports after the portal has stopped", got)
			}
			if got := r.State(); len(got.Mappings) != 0 {
				t.Errorf("state = %+v", got)
			}
		})
	}
}

// T43: what another host sends in the router's name, and what answers no question, counts
// for nothing.
func TestForgedAnswersAreIgnored(t *testing.T) {
	t.Parallel()
	bends := map[string]func([]byte) []byte{
		"another nonce":          func(b []byte) []byte { b[pcpHead]++; return b },
		"another protocol":       func(b []byte) []byte { b[pcpHead+12]++; return b },
		"another port":           func(b []byte) []byte { b[pcpHead+17]++; return b },
		"another opcode":         func(b []byte) []byte { b[1]++; return b },
		"a request":              func(b []byte) []byte { b[1] &= 0x7f; return b },
		"another version":        func(b []byte) []byte { b[0]++; return b },
		"cut short":              func(b []byte) []byte { return b[:len(b)-4] },
		"not whole words":        func(b []byte) []byte { return append(b, 0) },
		"longer than any may be": func(b []byte) []byte { return append(b, make([]byte, 1100)...) },
		"nothing":                func([]byte) []byte { return nil },
	}
	var all sync.WaitGroup
	for name, bend := range bends {
		h := newHome(t, false)
		h.answer(func(b []byte) []byte {
			if len(b) == pcpMapLen { // to a MAP
				return bend(b)
			}
			return b
		})
		all.Go(func() {
			s, err := findPCP(t.Context(), here, h.port)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			if got, err := s.add(t.Context(), udp, netip.AddrPortFrom(netip.IPv4Unspecified(), udp.Number)); err == nil {
				t.Errorf("%s: believed: %+v", name, got)
			}
		})
	}
	h := newHome(t, true)
	forger, _ := listenUDP(t, stranger)
	silent, port := listenUDP(t, here.gateway)
	answers(t, silent, func(b []byte, from netip.AddrPort) {
		h.mu.Lock()
		defer h.mu.Unlock()
		forger.WriteToUDPAddrPort(h.natpmp(b), from) // right, but for who says it
	})
	all.Go(func() {
		began := time.Now()
		if _, err := findNATPMP(t.Context(), here, port); err == nil {
			t.Error("from another host: believed")
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("from another host: given up after %v, want 3 s at most", took)
		}
	})
	all.Wait()
}

func TestRefusalsAreSaidInWords(t *testing.T) {
	t.Parallel()
	h := newHome(t, false)
	h.answer(func(b []byte) []byte {
		if b[1] == pcpMap|pcpAnswer {
			b[3] = 8
		}
		return b
	})
	r := newRouter(here, protocolsAt(h.port, nowhere(t)), slog.New(slog.DiscardHandler))
	for again := time.Now(); !again.After(time.Now()); { // until all protocols were tried
		again = r.step(t.Context(), []Port{udp})
	}
	for _, want := range []string{"PCP: the router refuses: it has no resources left", "NAT-PMP: no answer", "UPnP IGD: no answer"} {
		if got := r.state().Why; !strings.Contains(got, want) {
			t.Errorf("why = %q, want %q in it", got, want)
		}
	}
}

// RFC 6887 section 8.5 end to end: the router's clock begins anew, and what it seems to have
// lost is asked for again.
func TestPortsAreMappedAgainAfterTheRouterHasRestarted(t *testing.T) {
	h := newHome(t, false)
	s, err := findPCP(t.Context(), here, h.port)
	if err != nil {
		t.Fatal(err)
	}
	any := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	if _, err := s.add(t.Context(), udp, any); err != nil || s.restarted() {
		t.Fatalf("%v, or the router seems to have restarted", err)
	}
	h.mu.Lock()
	h.epoch = 3
	h.mu.Unlock()
	if _, err := s.add(t.Context(), udp, any); err != nil || !s.restarted() {
		t.Errorf("%v, or the restart is not seen", err)
	}
}

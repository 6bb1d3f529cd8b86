package doctor

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

// ask is a relay that is asked over UDP, with a ticket: a relay is silent to all who have
// none (package leg).
type ask struct {
	relay  *Relay
	ticket wire.Ticket
	// whole says to end the bind, which tells where the relay sees this machine. Without
	// it the relay keeps nothing: the ticket may be in use.
	whole bool

	to     netip.AddrPort
	binder *leg.Binder
	sent   time.Time
	done   bool
}

// bind asks all relays over one socket, so that a NAT that maps by address and port alone
// shows itself. It ends when all have answered, and after stepTime at the latest.
func bind(ctx context.Context, conn net.PacketConn, asks []*ask) {
	end := time.Now().Add(stepTime)
	counter := uint64(time.Now().UnixMilli())
	for _, a := range asks {
		a.to = netip.AddrPortFrom(a.relay.Addr, a.relay.UDPPort)
		a.binder = leg.NewBinder(leg.ID{Session: a.ticket.Session, Leg: a.ticket.Leg}, a.ticket.Secret, counter)
		a.relay.UDP = Try{Fault: Silent}
	}
	buf := make([]byte, leg.MaxAnswerLen+1)
	for ctx.Err() == nil && time.Now().Before(end) {
		again, waits := send(conn, asks)
		if !waits {
			return
		}
		if end.Before(again) {
			again = end
		}
		conn.SetReadDeadline(again)
		n, from, err := conn.ReadFrom(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			continue // what ICMP said of something sent before
		}
		for _, a := range asks {
			if a.to == addrPort(from) {
				a.take(buf[:n])
			}
		}
	}
}

// send sends what is due, and returns when more is; waits says that an answer is missing.
func send(conn net.PacketConn, asks []*ask) (again time.Time, waits bool) {
	for _, a := range asks {
		if a.done {
			continue
		}
		now := time.Now()
		packet, next := a.binder.Packet(now)
		if packet != nil {
			a.sent = now
			if _, err := conn.WriteTo(packet, net.UDPAddrFromAddrPort(a.to)); err != nil && a.relay.UDP.Fault != None {
				a.relay.UDP.Err, a.relay.UDP.Fault = err, Silent
				if f := connectFault(err); f == Unreachable { // by this machine's own word, which it would say again
					a.relay.UDP.Fault, a.done = f, true
					continue
				}
			}
		}
		if again.IsZero() || next.Before(again) {
			again = next
		}
		waits = true
	}
	return again, waits
}

// take takes a packet of the relay.
func (a *ask) take(packet []byte) {
	if a.done || !a.binder.Handle(packet) {
		return
	}
	if took := max(time.Since(a.sent), time.Microsecond); a.relay.UDP.Fault != None || took < a.relay.UDP.Took {
		a.relay.UDP = Try{Took: took}
	}
	mapped, bound := a.binder.Mapped()
	if bound {
		a.relay.Mapped = mapped
	}
	a.done = bound || !a.whole
}

func addrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

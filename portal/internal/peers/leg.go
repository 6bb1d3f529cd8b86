package peers

import (
	"net/netip"

	"github.com/netport/netport/portal/internal/meeting"
	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/proto/wire"
)

// Leg is this portal's way into one session; *path.Leg is one.
type Leg interface {
	meeting.Leg
	// Relay returns the name of the session's relay.
	Relay() string
	// Mode returns the name of the way that carried last, and where at the relay
	// that is.
	Mode() (mode string, addr netip.AddrPort)
	// Refresh has made anew what the network may have forgotten of the leg.
	Refresh()
	// Failed tells that no carrier came up.
	Failed()
	Close()
}

// Finder makes Legs. server is where the server was reached last: no leg leads
// there. The error says why the relay is not dialled. A Leg must be closed.
type Finder interface {
	// Leg returns the way into a session that the server has announced.
	Leg(session wire.Session, server netip.Addr) (Leg, error)
	// Listen has heard called with the name of each relay that answers. It must not block.
	Listen(heard func(relay string))
	// Ticket returns the way into the standing session of a ticket.
	Ticket(t wire.Ticket, server netip.Addr) (Leg, error)
}

// Paths makes a Finder of the one that there is.
func Paths(f *path.Finder) Finder { return paths{f} }

type paths struct{ finder *path.Finder }

func (p paths) Listen(heard func(relay string)) { p.finder.Listen(heard) }

func (p paths) Leg(session wire.Session, server netip.Addr) (Leg, error) {
	l, err := p.finder.Leg(session, server)
	if err != nil {
		return nil, err // and no Leg that is one of nothing
	}
	return l, nil
}

func (p paths) Ticket(t wire.Ticket, server netip.Addr) (Leg, error) {
	l, err := p.finder.Ticket(t, server)
	if err != nil {
		return nil, err
	}
	return l, nil
}

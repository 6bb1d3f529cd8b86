package daemon

import (
	"errors"
	"fmt"
)

// errOpening says that the portal is not ready yet.
var errOpening = errors.New("listeners are being opened")

// look is what the service manager is told of the portal. It is ready when each listener
// of the grants that it has kept is open, or has said why not; it is then trying the
// server, and whether that is there is no matter of readiness.
func (p *Portal) look() (string, error) {
	listening := 0
	states := p.entry.States()
	for _, s := range states {
		switch {
		case s.Listening:
			listening++
		case s.Error == "" && !p.opened:
			return "", errOpening
		}
	}
	p.opened = true
	server := "looking for a server"
	if s := p.client.Status(); s.Connected {
		server = "connected to " + s.Name + " at " + s.Address
	}
	return fmt.Sprintf("%s; listeners %d of %d; tunnels %d", server, listening, len(states), len(p.pool.Status())), nil
}

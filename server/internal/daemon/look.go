package daemon

import (
	"fmt"
	"time"
)

// maxStill is after which time without a turn the hub's loop is taken for dead.
const maxStill = 30 * time.Second

// look is what the service manager is told of the server.
func (d *daemon) look() (string, error) {
	portals, relays, turned := d.hub.Pulse()
	if still := time.Since(turned); still > maxStill {
		return "", fmt.Errorf("the hub has stood still for %v", still.Round(time.Second))
	}
	return fmt.Sprintf("connected: portals %d, relays %d", portals, relays), nil
}

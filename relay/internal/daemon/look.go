package daemon

import (
	"fmt"
	"time"
)

// maxStill is after which time without a sweep the relay's loop is taken for dead.
const maxStill = 30 * time.Second

// look is what the service manager is told of the relay.
func (d *Daemon) look() (string, error) {
	sessions := d.leases.Len()
	mode, _ := d.mode()
	d.mu.Lock()
	defer d.mu.Unlock()
	if still := time.Since(d.swept); still > maxStill {
		return "", fmt.Errorf("the relay has stood still for %v", still.Round(time.Second))
	}
	server := "connected to a server"
	if d.conn == nil {
		server = "looking for a server"
	}
	return fmt.Sprintf("%s; sessions %d; mode %s", server, sessions, mode), nil
}

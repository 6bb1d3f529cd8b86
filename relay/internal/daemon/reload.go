package daemon

import (
	"github.com/netport/netport/proto/reload"

	"github.com/netport/netport/relay/internal/config"
)

// Follow has the relay take what r reads. It is called before Run.
func (d *Daemon) Follow(r *reload.Reloader[config.Config]) { d.reload = r }

// current returns the configuration as far as it may change while the relay runs; the
// rest of it is of no use.
func (d *Daemon) current() *config.Config { return d.live.Load() }

// takeConfig has the relay go by the live keys of another configuration, for what begins from
// now on.
func (d *Daemon) takeConfig(c config.Config) {
	d.live.Store(&c)
	d.sources.SetDeny(c.Deny)
	d.leases.SetPerPortal(c.SessionsPerPortal)
	d.udp.SetLimits(c.PacketsPerSecond, c.BytesPerSecond)
	if d.kernel != nil {
		d.kernel.SetLimits(c.PacketsPerSecond, c.BytesPerSecond)
	}
}

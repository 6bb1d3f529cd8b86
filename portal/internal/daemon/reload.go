package daemon

import (
	"github.com/netport/netport/portal/internal/config"
	"github.com/netport/netport/proto/reload"
	"github.com/netport/netport/proto/wire"
)

// Follow has the portal take what r reads. It is called before Run.
func (p *Portal) Follow(r *reload.Reloader[config.Config]) { p.reload = r }

// current returns the configuration as far as it may change while the portal runs; the
// rest of it is of no use.
func (p *Portal) current() *config.Config { return p.live.Load() }

// take has the portal go by the live keys of another configuration. What its owner does
// not allow any more is cut.
func (p *Portal) take(c config.Config) {
	p.live.Store(&c)
	p.pool.SetLinger(c.Linger)
	p.exit.SetList(c.Dial)
	p.entry.SetOwner(c.Listen, c.Users)
	var ids []wire.GrantID
	for _, g := range p.keeper.Held() {
		dials := g.Exit.Name == p.credentials.ID.Name && !c.Dial.Outright(g.Target)
		listens := g.Entry.Name == p.credentials.ID.Name && c.Listen.Listen(g.Listen) != nil
		if dials || listens {
			ids = append(ids, g.ID())
		}
	}
	if cut := p.pool.Cut(ids, wire.ReasonLocalList); cut > 0 {
		p.log.Info("connections cut: the configuration does not allow them any more", "cut", cut)
	}
}

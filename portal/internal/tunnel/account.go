package tunnel

import "github.com/netport/netport/proto/wire"

// Account adds up what is carried for one forward, by whichever tunnel. Its methods
// must not block, nor call back.
type Account interface {
	// Enter tells of a stream or flow that begins. Meter says what it has carried so
	// far, also after it has left; it must not be called within Enter or Leave.
	Enter(Meter)
	// Leave tells that it is over, and what it has carried in all.
	Leave(Meter, Totals)
	// Moved tells that it goes on over another carrier.
	Moved()
}

// Meter is a stream or a flow.
type Meter interface {
	Carried() Totals
}

// account returns the account of a grant, if anybody keeps one.
func (t *Tunnel) account(id wire.GrantID, mine bool) Account {
	if t.cfg.Account == nil {
		return nil
	}
	return t.cfg.Account(id, mine)
}

// enter puts the stream into an account.
func (p *pipe) enter() {
	a := p.t.account(p.grant, p.mine)
	p.mu.Lock()
	defer p.mu.Unlock()
	if a != nil && !p.gone {
		p.account = a
		a.Enter(p)
	}
}

// leaveAccountLocked takes the stream, which is over, out of its account.
func (p *pipe) leaveAccountLocked() {
	if p.account != nil {
		p.account.Leave(p, p.totalsLocked())
		p.account = nil
	}
}

// Carried implements Meter.
func (p *pipe) Carried() Totals {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.totalsLocked()
}

func (p *pipe) totalsLocked() Totals { return Totals{Sent: p.st.Acked(), Received: p.st.Written()} }

// enter puts the flow into an account.
func (f *Flow) enter() {
	a := f.t.account(f.grant, f.sink != nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	if a != nil && !f.over {
		f.account = a
		a.Enter(f)
	}
}

// Carried implements Meter: what was sent has left this portal, whether it arrives or not.
func (f *Flow) Carried() Totals { return Totals{Sent: f.out.Load(), Received: f.in.Load()} }

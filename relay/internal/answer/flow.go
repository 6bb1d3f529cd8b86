package answer

import (
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/packet"
)

// tuple is the 4-tuple of a leg, in a form without pointers: there may be
// millions. IPv4 addresses are mapped ones.
type tuple struct {
	source, local         [16]byte
	sourcePort, localPort uint16
}

// tupleOf returns the 4-tuple that a packet came over.
func tupleOf(t packet.TCP) tuple {
	return tuple{t.Source.Addr().As16(), t.Dest.Addr().As16(), t.Source.Port(), t.Dest.Port()}
}

func tupleOfLeg(l bpf.Leg) tuple {
	return tuple{l.Remote.Addr().As16(), l.Local.As16(), l.Remote.Port(), l.Port}
}

func (t tuple) remote() (netip.Addr, uint16) {
	return netip.AddrFrom16(t.source).Unmap(), t.sourcePort
}

func (t tuple) leg() bpf.Leg {
	return bpf.Leg{
		Remote: netip.AddrPortFrom(t.remote()),
		Port:   t.localPort,
		Local:  netip.AddrFrom16(t.local).Unmap(),
	}
}

// ends returns where a packet to the leg leaves from and goes to.
func (t tuple) ends() (source, dest netip.AddrPort) {
	l := t.leg()
	return netip.AddrPortFrom(l.Local, l.Port), l.Remote
}

// flow is an installed connection.
type flow struct {
	session wire.SessionID
	legs    [2]tuple
}

func (f *flow) other(t tuple) tuple {
	if f.legs[0] == t {
		return f.legs[1]
	}
	return f.legs[0]
}

func (f *flow) pair() bpf.Pair {
	return bpf.Pair{Protocol: bpf.TCP, A: f.legs[0].leg(), B: f.legs[1].leg()}
}

// keep notes a flow that is installed.
func (m *Machine) keep(session wire.SessionID, legs [2]tuple) {
	f := &flow{session: session, legs: legs}
	m.flows[legs[0]], m.flows[legs[1]] = f, f
	m.sessions[session] = append(m.sessions[session], f)
}

// forget ends a flow; its 4-tuples rest.
func (m *Machine) forget(now time.Time, f *flow) {
	for _, t := range f.legs {
		delete(m.flows, t)
		m.quarantined.add(now, t, f.session, m.cfg.Limits.Quarantined)
	}
}

// Adopt makes a flow known that was installed before the machine was made. It
// does nothing if a leg of it is known already, or if there are too many.
func (m *Machine) Adopt(f Flow) {
	m.mu.Lock()
	defer m.mu.Unlock()
	legs := [2]tuple{tupleOfLeg(f.Pair.A), tupleOfLeg(f.Pair.B)}
	_, a := m.flows[legs[0]]
	_, b := m.flows[legs[1]]
	if a || b || len(m.flows)/2 >= m.cfg.Limits.Flows {
		return
	}
	m.keep(f.Session, legs)
}

// Closed says that a flow is over and installed no more: its TCP connection has
// ended or it has expired. From now on its legs may begin a new handshake in
// its session, which is returned; zero if the flow was not known.
func (m *Machine) Closed(now time.Time, pair bpf.Pair) wire.SessionID {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.flows[tupleOfLeg(pair.A)]
	if !ok || f.pair() != pair {
		return wire.SessionID{}
	}
	m.forget(now, f)
	rest := slices.DeleteFunc(m.sessions[f.session], func(o *flow) bool { return o == f })
	if m.sessions[f.session] = rest; len(rest) == 0 {
		delete(m.sessions, f.session)
	}
	return f.session
}

// End forgets a session: its handshakes, without a word to anybody, and its
// flows, which it returns so that the edge takes them out of the data plane.
func (m *Machine) End(now time.Time, session wire.SessionID) []Flow {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endSlots(session)
	var ended []Flow
	for _, f := range m.sessions[session] {
		m.forget(now, f)
		ended = append(ended, Flow{Session: session, Pair: f.pair()})
	}
	delete(m.sessions, session)
	return ended
}

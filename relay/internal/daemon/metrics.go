package daemon

import (
	"sync"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/metrics"

	"github.com/netport/netport/relay/internal/config"
	"github.com/netport/netport/relay/internal/lease"
)

// counts are what the relay counts for its metrics alone.
type counts struct {
	opened metrics.Counts // sessions, by who ordered them
	ended  metrics.Counts // sessions, by reason
	turned metrics.Counts // orders of sessions that were refused, by reason

	mu   sync.Mutex             // guards the following
	seen map[carriedBy][2]units // as told last
}

// carriedBy says what has carried something.
type carriedBy struct{ transport, plane string }

// units is how much was carried in one direction. Of TCP in user space packets are not
// known.
type units struct{ packets, bytes uint64 }

// Metrics returns the page of what the relay has counted. It changes nothing and costs
// what "status" does.
func (d *Daemon) Metrics() *metrics.Page {
	p := metrics.NewPage("relay", command.Version, d.started)
	d.identity.Metrics(p)
	d.mu.Lock()
	connected, draining := d.conn != nil, d.draining || d.stopping
	d.mu.Unlock()
	p.Gauge("server_connected", "Whether the relay is connected to a server.").Is(connected)
	p.Gauge("draining", "Whether the relay takes no session any more.").Is(draining)
	d.sessionMetrics(p)
	d.legMetrics(p)
	d.carriedMetrics(p)
	drops := p.Counter("drops_total", "Packets and connections that were not carried, by why. What the kernel counts, it counts since its program was loaded first.")
	drops.AddAll(d.drops.All(), "reason", "plane", config.ModeUserSpace)
	if d.plane != nil {
		drops.AddAll(d.plane.Drops(), "reason", "plane", kernelPlane)
	}
	modes := p.Gauge("plane_info", "What carries the packets of sessions: the mode of the kernel plane on each interface, or userspace.")
	if d.plane == nil {
		modes.Set(1, "interface", "", "mode", config.ModeUserSpace)
		return p
	}
	for _, i := range d.plane.Interfaces() {
		modes.Set(1, "interface", i.Name, "mode", i.Mode)
	}
	return p
}

// kernelPlane is what metrics call the kernel's data plane, whatever its mode.
const kernelPlane = "kernel"

func (d *Daemon) sessionMetrics(p *metrics.Page) {
	_, tickets := d.leases.Tickets()
	sessions := p.Gauge("sessions", "Sessions that are held: ordered by a server, or made of tickets.")
	sessions.Set(float64(d.leases.Len()-tickets), "by", byServer)
	sessions.Set(float64(tickets), "by", byTicket)
	p.Gauge("sessions_capacity", "How many sessions may be held.").Set(float64(d.cfg.Capacity))
	p.Counter("sessions_opened_total", "Sessions that were opened.").AddAll(d.counts.opened.All(), "by")
	p.Counter("sessions_ended_total", "Sessions that have ended, by why.").AddAll(d.counts.ended.All(), "reason")
	p.Counter("sessions_refused_total", "Orders of a server for a session that were refused, by why.").AddAll(d.counts.turned.All(), "reason")
	taken, all := d.leases.Ports()
	ports := p.Gauge("ports", "Session ports for sockets.")
	ports.Set(float64(taken), "state", "used")
	ports.Set(float64(all-taken), "state", "free")
}

const (
	byServer = "server"
	byTicket = "ticket"
)

func (d *Daemon) legMetrics(p *metrics.Page) {
	connections := p.Gauge("tcp_connections", "TCP connections between two portals that are carried now.")
	connections.Set(float64(d.splice.Pairs()), "plane", config.ModeUserSpace)
	udp := p.Gauge("udp_legs", "UDP legs that are bound.")
	bound := 0
	for _, s := range d.leases.List() {
		bound += s.Bound
	}
	udp.Set(float64(bound))
	waiting := d.splice.Waiting()
	legs := p.Gauge("tcp_legs_waiting", "TCP legs that wait: for the other leg, or for their proof.")
	legs.Set(float64(waiting.Legs), "state", "proven", "by", byServer)
	legs.Set(float64(waiting.Standing), "state", "proven", "by", byTicket)
	legs.Set(float64(waiting.Unproven), "state", "unproven", "by", "")
	p.Counter("tcp_taken_over_total", "TCP connections that the server on this machine has handed over (take_over).").Add(d.splice.TakenOver())
	if d.plane == nil {
		return
	}
	handshakes, flows := d.kernel.Counts()
	connections.Set(float64(flows), "plane", kernelPlane)
	p.Gauge("tcp_handshakes", "Handshakes of packet mode that are under way.").Set(float64(handshakes))
	short, refused := d.udp.Shortcuts()
	p.Gauge("udp_pairs_kernel", "Pairs of UDP legs that the kernel carries.").Set(float64(short))
	n := uint64(0)
	for _, of := range refused {
		n += of
	}
	p.Counter("udp_pairs_refused_total", "Pairs of UDP legs that the kernel did not take: user space carries them.").Add(n)
}

// carriedMetrics adds bytes and packets. What is between one counter and another may
// be missing for a moment, and what only rises must never fall: then what was told
// last is told again.
func (d *Daemon) carriedMetrics(p *metrics.Page) {
	now := map[carriedBy][2]units{{"tcp", config.ModeUserSpace}: ofTraffic(d.splice.Total())}
	udp := d.udp.Totals()
	now[carriedBy{"udp", config.ModeUserSpace}] = ofCounters(udp.User)
	if d.plane != nil {
		now[carriedBy{"udp", kernelPlane}] = ofCounters(udp.Kernel)
		now[carriedBy{"tcp", kernelPlane}] = ofCounters(d.kernel.Total())
	}
	bytes := p.Counter("bytes_total", "Bytes of payload that were carried: forth, from who opened the session, and back.")
	packets := p.Counter("packets_total", "Packets that were carried. In user space TCP has none.")
	c := &d.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	for by, both := range now {
		before := c.seen[by]
		for i, direction := range []string{"forth", "back"} {
			both[i] = units{max(both[i].packets, before[i].packets), max(both[i].bytes, before[i].bytes)}
			bytes.Add(both[i].bytes, "transport", by.transport, "plane", by.plane, "direction", direction)
			if by != (carriedBy{"tcp", config.ModeUserSpace}) {
				packets.Add(both[i].packets, "transport", by.transport, "plane", by.plane, "direction", direction)
			}
		}
		now[by] = both
	}
	c.seen = now
}

func ofTraffic(t lease.Traffic) [2]units { return [2]units{{bytes: t[0]}, {bytes: t[1]}} }

func ofCounters(c bpf.Counters) [2]units {
	return [2]units{{c.FromA.Packets, c.FromA.Bytes}, {c.FromB.Packets, c.FromB.Bytes}}
}

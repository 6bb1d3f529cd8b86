package daemon

import (
	"context"
	"os"
	"time"

	"github.com/netport/netport/portal/internal/traffic"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/metrics"
	"github.com/netport/netport/proto/wire"
)

// metricsEvery is how often the file is written: as often as Prometheus asks by default.
const metricsEvery = 15 * time.Second

// account returns who adds up what the streams and flows of a grant carry.
func (p *Portal) account(id wire.GrantID, mine bool) tunnel.Account {
	g, ok := p.keeper.Of(id)
	switch {
	case !ok:
		return nil
	case mine:
		return p.traffic.Account(traffic.Key{Forward: g.Forward, Peer: g.Exit.Name, Role: roleEntry})
	}
	return p.traffic.Account(traffic.Key{Forward: g.Forward, Peer: g.Entry.Name, Role: roleExit})
}

// writeMetrics writes the file until ctx is cancelled, and removes it in the end: what
// it says would be taken for the present.
func (p *Portal) writeMetrics(ctx context.Context) {
	tick := time.NewTicker(metricsEvery)
	defer tick.Stop()
	said := ""
	for {
		text := ""
		if err := identity.ReplaceFile(p.config.MetricsFile, p.Metrics().AppendTo(nil), 0o644); err != nil {
			text = err.Error()
		}
		if text != said && text != "" {
			p.log.Warn("metrics not written", "error", text)
		}
		said = text
		select {
		case <-tick.C:
		case <-ctx.Done():
			if said == "" {
				os.Remove(p.config.MetricsFile)
			}
			return
		}
	}
}

// Metrics returns the page of what the portal has counted. It changes nothing and costs
// what "status" does.
func (p *Portal) Metrics() *metrics.Page {
	m := metrics.NewPage("portal", command.Version, p.started)
	s := p.Status()
	p.identity.Metrics(m)
	m.Gauge("server_connected", "Whether the portal is connected to a server.").Is(s.Server.Connected)
	m.Counter("server_connections_total", "How often it has connected to a server.").Add(s.Server.Connects)
	m.Gauge("policy_version", "Version of the policy of which every grant is here.").Set(float64(s.Server.Policy))
	refused := m.Gauge("grants_refused", "Grants of the server that are not taken, by why.")
	reasons := make(map[string]int)
	for _, r := range s.Refusals {
		if r.Peer == "" {
			reasons[r.Reason]++
		}
	}
	for reason, n := range reasons {
		refused.Set(float64(n), "reason", metrics.Word(reason))
	}
	forbidden, failed := p.exit.Refused()
	m.Counter("requests_refused_total", "Connections that peers asked for and no grant or list of this portal allows, by why.").AddAll(forbidden, "reason")
	m.Counter("dials_failed_total", "Connections to targets that failed, by why.").AddAll(failed, "reason")
	datagrams := m.Counter("datagrams_dropped_total", "Datagrams that targets did not get: nobody listened there, they were too large for the way, or above the limits of their grants.")
	datagrams.Add(s.Unreachable, "reason", "unreachable")
	datagrams.Add(s.Oversized, "reason", "oversized")
	datagrams.Add(s.Limited, "reason", "limited")
	m.Gauge("buffered_bytes", "Bytes that all tunnels hold for slow readers and lost paths, or have promised to hold.").Set(float64(p.pool.Budget.Used()))
	p.forwardMetrics(m, s)
	p.tunnelMetrics(m, s)
	return m
}

func (p *Portal) forwardMetrics(m *metrics.Page, s Status) {
	up := m.Gauge("forward_up", "Whether a forward works, as far as this portal can know: as in status.")
	accepted := m.Counter("accepted_total", "Connections and clients of a forward's listener.")
	failures := m.Counter("accepted_failed_total", "Of these, how many were refused or cut.")
	clients := m.Counter("clients_refused_total", "Connections and datagrams of clients that may not use a forward, by why.")
	dropped := m.Counter("listener_datagrams_dropped_total", "Datagrams that found no room at a forward's listener.")
	month := m.Gauge("month_bytes", "Bytes that a forward has carried this month, where its grant limits them.")
	most := m.Gauge("month_limit_bytes", "How many it may carry in a month.")
	// What the listener counts stands at each of its targets: once is enough.
	seen := make(map[string]bool)
	states := make(map[traffic.Key]bool)
	for _, f := range s.Forwards {
		k := traffic.Key{Forward: f.Name, Peer: f.Peer, Role: f.Role}
		states[k] = states[k] || f.State == Up
		place := f.Listen
		if place == "stdio:" { // each of these is a listener of its own
			place += f.Peer + f.Target
		}
		if f.Role == roleEntry && !seen[place] {
			seen[place] = true
			accepted.Add(f.Accepted, "forward", f.Name)
			failures.Add(f.Failed, "forward", f.Name)
			clients.Add(f.Forbidden, "forward", f.Name, "reason", "address")
			clients.Add(f.Foreign, "forward", f.Name, "reason", "user")
			dropped.Add(f.Dropped, "forward", f.Name)
		}
		if t := f.Terms; t != nil && t.Month != 0 && f.Role == roleExit {
			month.Set(float64(t.MonthUsed), "forward", f.Name, "peer", f.Peer)
			most.Set(float64(t.Month), "forward", f.Name, "peer", f.Peer)
		}
	}
	count := map[[2]string]int{{roleEntry, Up}: 0, {roleEntry, Down}: 0, {roleExit, Up}: 0, {roleExit, Down}: 0}
	for k, is := range states {
		up.Is(is, "forward", k.Forward, "peer", k.Peer, "role", k.Role)
		if is {
			count[[2]string{k.Role, Up}]++
		} else {
			count[[2]string{k.Role, Down}]++
		}
	}
	forwards := m.Gauge("forwards", "Forwards that this portal has part in.")
	for k, n := range count {
		forwards.Set(float64(n), "role", k[0], "state", k[1])
	}
	bytes := m.Counter("bytes_total", "Bytes of applications that a forward has carried: sent to the peer and taken there, and received from it.")
	opened := m.Counter("streams_total", "Streams and flows of a forward.")
	open := m.Gauge("streams", "Streams and flows of a forward that are open.")
	moved := m.Counter("resumes_total", "How often a stream of a forward went on over another carrier.")
	for k, sum := range p.traffic.Forwards() {
		labels := []string{"forward", k.Forward, "peer", k.Peer, "role", k.Role}
		bytes.Add(sum.Sent, append(labels, "direction", "sent")...)
		bytes.Add(sum.Received, append(labels, "direction", "received")...)
		opened.Add(sum.Opened, labels...)
		open.Set(float64(sum.Open), labels...)
		moved.Add(sum.Moved, labels...)
	}
}

func (p *Portal) tunnelMetrics(m *metrics.Page, s Status) {
	up := m.Gauge("tunnel_up", "Whether the tunnel to a peer has a carrier; there is none where nothing is carried.")
	trip := m.Gauge("round_trip_seconds", "Round trip to a peer and back, over the quickest carrier.")
	carriers := m.Gauge("carriers", "Connections that carry the tunnel to a peer, by transport, and relay: empty where there is none between.")
	type way struct{ peer, transport, relay string }
	ways, best, alive := make(map[way]int), make(map[string]float64), make(map[string]bool)
	for _, t := range s.Tunnels {
		alive[t.Peer] = alive[t.Peer] || t.Up
		if t.RTT > 0 && (best[t.Peer] == 0 || t.RTT < best[t.Peer]) {
			best[t.Peer] = t.RTT
		}
		for _, w := range t.Ways {
			ways[way{t.Peer, w.Kind, w.Relay}]++
		}
	}
	for peer, is := range alive {
		up.Is(is, "peer", peer)
	}
	for peer, ms := range best {
		trip.Set(ms/1000, "peer", peer)
	}
	for w, n := range ways {
		carriers.Set(float64(n), "peer", w.peer, "transport", metrics.Word(w.transport), "relay", w.relay)
	}
	stalls := m.Counter("stalls_total", "How often nothing of what was open got through to a peer for a while.")
	total := m.Counter("stall_seconds_total", "How long that was in all.")
	longest := m.Gauge("stall_longest_seconds", "The longest of these times.")
	for peer, s := range p.traffic.Peers() {
		stalls.Add(s.Count, "peer", peer)
		total.Seconds(s.Total, "peer", peer)
		longest.Set(s.Longest.Seconds(), "peer", peer)
	}
}

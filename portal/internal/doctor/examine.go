package doctor

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/config"
	"github.com/netport/netport/portal/internal/daemon"
	"github.com/netport/netport/portal/internal/network"
	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/portal/internal/portmap"
	"github.com/netport/netport/portal/internal/state"
	"github.com/netport/netport/proto/address"
	wirecontrol "github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/overquic"
	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"
)

const (
	// stepTime bounds each look at one thing, and wholeTime all of them.
	stepTime  = 5 * time.Second
	wholeTime = 30 * time.Second
	// askTime bounds a question to the daemon.
	askTime = 2 * time.Second
	// meetTime bounds how long the daemon may take to open a tunnel: what is shut on the way
	// is waited for.
	meetTime = 8 * time.Second
	// awayTime is how long a daemon must have been without a server before the server is
	// greeted in its place: to that they are one portal, and the newer connection ends the
	// older one.
	awayTime = 10 * time.Second
	// tellTime is how long a server that was greeted is heard.
	tellTime = 2 * time.Second

	maxAddresses = 4 // of one name or relay
	maxServers   = 32
	maxRelays    = 16
)

// Means are what is looked with; tests have others.
type Means struct {
	Now    func() time.Time // the clock of the machine
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	// DialUDP makes the handshake of a connection over QUIC, which then ends.
	DialUDP func(ctx context.Context, address string, cfg *tls.Config) (tls.ConnectionState, error)
	Listen  func(network string) (net.PacketConn, error) // opens a UDP socket
	MTU     func(ctx context.Context, to netip.AddrPort) int
	// Ask asks the daemon of a socket.
	Ask func(ctx context.Context, socket string) (daemon.Known, error)
	// Meet has the daemon of a socket open a tunnel with a portal, if it has none.
	Meet func(ctx context.Context, socket, portal string) error
	// Router asks the network's router by which protocol it maps ports.
	Router func(ctx context.Context) (protocol string, err error)
}

// Machine returns the means of this machine.
func Machine() Means {
	return Means{
		Now: time.Now,
		Lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
		Dial: (&net.Dialer{KeepAlive: -1}).DialContext,
		DialUDP: func(ctx context.Context, address string, cfg *tls.Config) (tls.ConnectionState, error) {
			conn, _, err := overquic.Dial(ctx, overquic.Dialer{}, address, func() (*tls.Config, *identity.Early) { return cfg, nil })
			if err != nil {
				return tls.ConnectionState{}, err
			}
			defer conn.Wait()
			defer conn.Close()
			return conn.ConnectionState(), nil
		},
		Listen: func(network string) (net.PacketConn, error) { return net.ListenPacket(network, ":0") },
		MTU:    pathMTU,
		Ask: func(ctx context.Context, socket string) (k daemon.Known, err error) {
			return k, local.Call(ctx, socket, daemon.CallKnown, nil, &k)
		},
		Meet: func(ctx context.Context, socket, portal string) error {
			return local.Call(ctx, socket, daemon.CallPing, daemon.PingArgs{Portal: portal}, nil)
		},
		Router: func(ctx context.Context) (string, error) {
			return portmap.Find(ctx, network.New(slog.New(slog.DiscardHandler)).Current().Gateway)
		},
	}
}

// Examine looks at all that a portal of this configuration file needs, for half a minute at
// most.
func Examine(ctx context.Context, file string, m Means) Facts {
	ctx, cancel := context.WithTimeout(ctx, wholeTime)
	defer cancel()
	e := examination{Means: m, f: Facts{Config: file, Now: m.Now(), Local: make(map[netip.Addr]bool)}}
	var err error
	if e.config, err = config.Load(file); err != nil {
		e.f.Invalid = err
		return e.f
	}
	e.f.Proxy = e.config.Proxy
	e.files()
	e.ask(ctx)
	e.meet(ctx)
	var looking sync.WaitGroup
	looking.Go(func() { e.servers(ctx) })
	if e.f.Maps = e.config.Direct && e.config.PortMapping; e.f.Maps {
		looking.Go(func() { e.router(ctx) })
	}
	looking.Go(func() { e.relays(ctx, e.kept.Tickets, e.f.known().Relays) })
	looking.Wait()
	e.greet(ctx)
	return e.f
}

// examination is one that is under way. Servers and relays are looked at side by side: of f
// each writes its own fields.
type examination struct {
	Means
	config      config.Config
	credentials *identity.Credentials // nil: they cannot be read
	kept        state.Kept
	f           Facts
}

// ask asks the daemon.
func (e *examination) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	k, err := e.Ask(ctx, e.config.Socket)
	switch {
	case err == nil:
		e.f.Daemon = &k
		if k.Status.Server.Connected {
			e.f.Told, e.f.Ahead = true, k.Status.Identity.Clock
		}
	case !errors.Is(err, local.ErrNoDaemon):
		e.f.Silent = err
	}
}

// meet has the daemon open a tunnel if it has none, for only a session shows which ports of
// single sessions a firewall lets out: a relay answers there to nobody else, and tickets are
// for its shared ports.
func (e *examination) meet(ctx context.Context) {
	s := e.f.known().Status
	up := slices.IndexFunc(s.Forwards, func(f daemon.Forward) bool { return f.State == daemon.Up })
	if up < 0 || slices.ContainsFunc(s.Tunnels, func(t peers.Status) bool { return t.Up }) {
		return
	}
	limited, cancel := context.WithTimeout(ctx, meetTime)
	defer cancel()
	e.f.Met = e.Meet(limited, e.config.Socket, s.Forwards[up].Peer)
	e.ask(ctx)
}

// router asks the router whether it maps ports.
func (e *examination) router(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	e.f.Protocol, e.f.Unmapped = e.Router(ctx)
}

// places returns the servers as they are written: those of the configuration, and those that
// a server has told of.
func (e *examination) places() []string { return slices.Concat(e.config.Servers, e.kept.Servers) }

// servers looks up the names of all servers and tries all addresses.
func (e *examination) servers(ctx context.Context) {
	var mu sync.Mutex // guards f.Names and f.Servers
	var all sync.WaitGroup
	hosts, seen := make(map[string][]Server), make(map[string]bool)
	for _, place := range e.places() {
		for _, a := range wirecontrol.Addresses([]string{place}) {
			host, port, err := net.SplitHostPort(a)
			if err != nil || seen[a] || len(seen) >= maxServers {
				continue
			}
			seen[a] = true
			n, _ := net.LookupPort("tcp", port) // a number: CheckServer has seen it
			_, _, bare := net.SplitHostPort(place)
			s := Server{Host: host, Port: uint16(n), Named: bare == nil}
			p := e.config.Proxy.Through(a)
			if p == nil {
				hosts[host] = append(hosts[host], s)
				continue
			}
			if e.credentials == nil {
				continue // nobody could be proven
			}
			s.Proxy = p.String()
			s.Addr, _ = netip.ParseAddrPort(a)
			all.Go(func() {
				s := server(ctx, e.through, e.credentials, s)
				mu.Lock()
				defer mu.Unlock()
				e.f.Servers = append(e.f.Servers, s)
			})
		}
	}
	for host, ports := range hosts {
		all.Go(func() {
			name := e.lookup(ctx, host)
			if _, err := netip.ParseAddr(host); err != nil {
				mu.Lock()
				e.f.Names = append(e.f.Names, name)
				mu.Unlock()
			}
			e.each(ctx, ports, name, func(s Server) {
				mu.Lock()
				defer mu.Unlock()
				e.f.Servers = append(e.f.Servers, s)
			})
		})
	}
	all.Wait()
	// sort.Slice, for slices.SortFunc is compiled anew for each type: 50 kB for these.
	sort.Slice(e.f.Names, func(i, j int) bool { return e.f.Names[i].Host < e.f.Names[j].Host })
	sort.Slice(e.f.Servers, func(i, j int) bool { return compareServers(&e.f.Servers[i], &e.f.Servers[j]) < 0 })
	// One that goes by its address, too, is one.
	list := e.f.Servers
	e.f.Servers = slices.DeleteFunc(slices.Clone(list), func(s Server) bool {
		return s.Host == s.Addr.Addr().String() && slices.ContainsFunc(list, func(o Server) bool { return o.Addr == s.Addr && o.Host != s.Host && !o.Earlier })
	})
}

// through dials as the configuration says.
func (e *examination) through(ctx context.Context, _, address string) (net.Conn, error) {
	return e.config.Proxy.DialContext(ctx, &net.Dialer{KeepAlive: -1}, address)
}

// lookup looks up one name.
func (e *examination) lookup(ctx context.Context, host string) Name {
	n := Name{Host: host}
	if a, err := netip.ParseAddr(host); err == nil {
		n.Addrs = []netip.Addr{a}
		return n
	}
	for _, h := range e.kept.Hosts {
		if h.Name == host {
			n.Earlier = h.Addrs
		}
	}
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	began := time.Now()
	n.Addrs, n.Err = e.Lookup(ctx, host)
	n.Took = time.Since(began)
	for i, a := range n.Addrs {
		n.Addrs[i] = a.Unmap()
	}
	n.Addrs = n.Addrs[:min(len(n.Addrs), maxAddresses)]
	return n
}

// each tries the ports of a server at all its addresses, side by side.
func (e *examination) each(ctx context.Context, ports []Server, name Name, put func(Server)) {
	if e.credentials == nil {
		return // nobody could be proven
	}
	configured := slices.ContainsFunc(e.config.Servers, func(s string) bool { return hostOf(s) == name.Host })
	var all sync.WaitGroup
	defer all.Wait()
	try := func(a netip.Addr, earlier bool) {
		if !configured && address.KindOf(a) != address.Ordinary {
			return // a server has named it, and the portal would not go there
		}
		for _, s := range ports {
			s.Addr, s.Earlier = netip.AddrPortFrom(a, s.Port), earlier
			all.Go(func() { put(e.overUDP(ctx, server(ctx, e.Dial, e.credentials, s))) })
		}
	}
	for _, a := range name.Addrs {
		try(a, false)
	}
	for _, a := range name.Earlier {
		if !slices.Contains(name.Addrs, a) {
			try(a, true)
		}
	}
}

// overUDP tries a server over UDP that was not reached over TCP.
func (e *examination) overUDP(ctx context.Context, s Server) Server {
	if s.Proven != "" {
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	state, err := e.DialUDP(ctx, s.place(), e.credentials.ClientTLS(identity.ProtocolControl, identity.Expect(identity.Server, "")))
	if err == nil {
		peer, _ := identity.PeerOf(state)
		s.Proven, s.UDP = peer.ID.Name, true
	}
	return s
}

// hostOf returns the host of a server as it is written.
func hostOf(server string) string {
	host, _, _ := net.SplitHostPort(wirecontrol.Addresses([]string{server})[0]) // CheckServer has seen it
	return host
}

// relays tries the relays of tickets, over TCP and UDP, and others that a server has named,
// over TCP. It adds to those that it tried before.
func (e *examination) relays(ctx context.Context, tickets []wire.Ticket, places []wire.RelayPlace) {
	asks := e.asks(tickets)
	for _, p := range places {
		known := slices.ContainsFunc(asks, func(a *ask) bool { return a.relay.Name == p.Name })
		if known || len(asks) >= maxRelays || path.CheckAddresses(p.Name, p.Addresses, e.serverAddr()) != nil {
			continue
		}
		for _, a := range p.Addresses[:min(len(p.Addresses), maxAddresses)] {
			asks = append(asks, &ask{relay: &Relay{Name: p.Name, Addr: a.Unmap(), TCPPort: p.Port}})
		}
	}
	var all sync.WaitGroup
	for _, a := range asks {
		at, dial := netip.AddrPortFrom(a.relay.Addr, a.relay.TCPPort), e.Dial
		if p := e.config.Proxy.Through(at.String()); p != nil {
			a.relay.Proxy, a.relay.UDPPort, dial = p.String(), 0, e.through
		} else {
			e.local(a.relay.Addr)
		}
		if a.relay.TCPPort != 0 {
			all.Go(func() {
				if a.relay.TCP = connect(ctx, dial, at); a.relay.TCP.Fault == None && e.credentials != nil {
					a.relay.TLS = atRelay(ctx, dial, e.credentials, a.relay.Name, at)
				}
			})
		}
		if a.relay.UDPPort != 0 {
			all.Go(func() { a.relay.MTU = e.MTU(ctx, netip.AddrPortFrom(a.relay.Addr, a.relay.UDPPort)) })
		}
	}
	for _, network := range []string{"udp4", "udp6"} {
		of := slices.DeleteFunc(slices.Clone(asks), func(a *ask) bool {
			return a.relay.UDPPort == 0 || a.relay.Addr.Is4() != (network == "udp4")
		})
		if len(of) == 0 {
			continue
		}
		all.Go(func() {
			conn, err := e.Listen(network)
			if err != nil {
				for _, a := range of {
					a.relay.UDP = Try{Fault: Unreachable, Err: err}
				}
				return
			}
			defer conn.Close()
			bind(ctx, conn, of)
		})
	}
	all.Wait()
	for _, a := range asks {
		e.f.Relays = append(e.f.Relays, *a.relay)
	}
	sort.Slice(e.f.Relays, func(i, j int) bool { return compareRelays(&e.f.Relays[i], &e.f.Relays[j]) < 0 })
}

// asks lists the relays of tickets, each with one ticket: one that is not in use, if there is.
func (e *examination) asks(tickets []wire.Ticket) (asks []*ask) {
	inUse := e.f.known().InUse
	for _, free := range []bool{true, false} {
		for _, t := range tickets {
			used := slices.Contains(inUse, hex.EncodeToString(t.Session[:]))
			ends, isTicket := ticket.Ends(t.Session)
			known := slices.ContainsFunc(asks, func(a *ask) bool { return a.relay.Name == t.Relay.Name })
			if known || used == free || !isTicket || !e.f.Now.Before(ends) || len(asks) >= maxRelays {
				continue
			}
			if path.CheckAddresses(t.Relay.Name, t.Relay.Addresses, e.serverAddr()) != nil {
				continue
			}
			for i, a := range t.Relay.Addresses[:min(len(t.Relay.Addresses), maxAddresses)] {
				r := &Relay{Name: t.Relay.Name, Addr: a.Unmap(), TCPPort: t.Relay.SharedTCP, UDPPort: t.Relay.SharedUDP}
				if t.Transports&wire.TransportUDP == 0 {
					r.UDPPort = 0
				}
				// One leg has one place: the bind is ended at one address alone.
				asks = append(asks, &ask{relay: r, ticket: t, whole: free && i == 0})
			}
		}
	}
	return asks
}

// serverAddr is where the server was reached, by which the addresses that it names are judged.
func (e *examination) serverAddr() netip.Addr {
	if at, err := netip.ParseAddrPort(e.f.known().Status.Server.Address); err == nil {
		return at.Addr()
	}
	for _, h := range e.kept.Hosts {
		return h.Addrs[0]
	}
	for _, s := range wirecontrol.Addresses(e.config.Servers) {
		if at, err := netip.ParseAddrPort(s); err == nil {
			return at.Addr()
		}
	}
	return netip.Addr{}
}

// local notes the address of this machine towards another. It sends nothing.
func (e *examination) local(to netip.Addr) {
	conn, err := net.Dial("udp", netip.AddrPortFrom(to, 9).String())
	if err != nil {
		return
	}
	defer conn.Close()
	e.f.Local[addrPort(conn.LocalAddr()).Addr()] = true
}

// greet says Hello to a server that has proven itself, as the daemon would, to hear the time
// and of relays, unless a daemon does.
func (e *examination) greet(ctx context.Context) {
	if s := e.f.known().Status.Server; e.f.Daemon != nil && (s.Connected || e.Now().Sub(s.Since) < awayTime) || e.f.Silent != nil {
		return
	}
	i := slices.IndexFunc(e.f.Servers, func(s Server) bool { return s.Proven != "" })
	if i < 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	d := wirecontrol.Dialer[wire.ToPortal, wire.FromPortal]{Credentials: e.credentials, Software: "netport-portal doctor", Parse: wire.ParseToPortal, Proxy: e.config.Proxy, Log: slog.New(slog.DiscardHandler)}
	place, udp := e.f.Servers[i].place(), e.f.Servers[i].UDP
	d.Last = func() wirecontrol.Way { return wirecontrol.Way{Address: place, UDP: udp} }
	conn, welcome, err := d.Dial(ctx, place)
	if err != nil {
		e.f.Greeted = err
		return
	}
	e.f.Told, e.f.Ahead = true, e.Now().Sub(time.Unix(int64(welcome.Time), 0))
	hearing, done := context.WithTimeout(ctx, tellTime)
	defer done()
	var tickets []wire.Ticket
	var places []wire.RelayPlace
	conn.Run(hearing, func(m wire.ToPortal) error {
		switch m := m.(type) {
		case wire.Ticket:
			tickets = append(tickets, m)
		case wire.Relays:
			places = m.Relays
		case wire.RelayState: // comes last
			done()
		}
		return nil
	})
	tickets = slices.DeleteFunc(tickets, func(t wire.Ticket) bool { return e.tried(t.Relay.Name) })
	places = slices.DeleteFunc(places, func(p wire.RelayPlace) bool { return e.tried(p.Name) })
	if len(tickets)+len(places) > 0 {
		e.relays(ctx, tickets, places)
	}
}

func (e *examination) tried(relay string) bool {
	return slices.ContainsFunc(e.f.Relays, func(r Relay) bool { return r.Name == relay })
}

package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/netport/netport/portal/internal/path"
)

// reached reports whether some server has proven itself.
func (f Facts) reached() bool {
	return f.Daemon != nil && f.Daemon.Status.Server.Connected || slices.ContainsFunc(f.Servers, func(s Server) bool { return s.Proven != "" })
}

func judgeServers(r *Report, f Facts) {
	for _, s := range f.Servers {
		judgeServer(r, f, s)
	}
	if len(f.Servers) == 0 {
		r.add("server", Failed, "no address of a server could be tried", "what is wrong above is why")
	}
	if f.Greeted != nil {
		r.add("greeting", Failed, oneLine(f.Greeted), "the server's log says why; if the portal was revoked or its name was taken, join anew with a token")
	}
}

func judgeServer(r *Report, f Facts, s Server) {
	what := "server " + s.place()
	if s.Addr.IsValid() && s.Host != s.Addr.Addr().String() {
		what += " (" + s.Host + ")"
	}
	if s.Proven != "" && !s.UDP {
		r.add(what, OK, fmt.Sprintf("%s, proven by its certificate (%s)", s.Proven, short(s.Took)), "")
		return
	}
	sibling := slices.ContainsFunc(f.Servers, func(o Server) bool { return o.Host == s.Host && o.Proven != "" && !o.UDP })
	state := Failed
	switch {
	case !s.Named && sibling, s.Fault == Unreachable && sibling: // one of those that are tried in turn
		state = OK
	case f.reached():
		state = Warning
	}
	text, do := s.words()
	if s.UDP {
		text += "; over UDP it is reached"
	}
	if state == OK {
		text, do = text+"; not needed, for another of its ports or addresses works", ""
	} else if s.shut() && s.Proxy == "" && !s.Earlier && !f.astray(s.Host) {
		o := Opening{Protocol: "TCP", Host: host(s.Addr.Addr(), s.Host), Ports: fmt.Sprint(s.Port), Need: Needed, Why: "the server"}
		if s.Fault == Foreign || s.Fault == NoTLS || s.Fault == Swallowed || s.Fault == Cut {
			o.Why += ", with nobody looking into TLS and no log-in page"
		}
		switch {
		case s.UDP:
			o.Need, o.Why = Reserve, o.Why+"; over UDP, as it is reached, it costs more"
		case state == Warning:
			o.Need = Reserve
		default:
			o.Why += " (or UDP to the same port)"
		}
		r.open(o)
	}
	r.add(what, state, text, do)
}

// shut reports whether a firewall may be why a port is not reached.
func (t Try) shut() bool {
	return t.Fault != None && t.Fault != OtherFault && t.Fault != Stranger && t.Fault != AtProxy && !errors.Is(t.Err, syscall.ENETUNREACH) // that is this machine's own word
}

// words says what is wrong with a server.
func (s Server) words() (text, do string) {
	switch s.Fault {
	case NoTLS:
		if strings.HasPrefix(s.Said, "HTTP/") && strings.Contains(s.Said, ", to ") {
			return fmt.Sprintf("a captive portal or proxy answers in the server's place: %q", s.Said), "log in there with a browser, or have this machine excepted from it"
		}
		return fmt.Sprintf("what answers there speaks no TLS: %q", s.Said), "have the firewall or proxy let TLS through, or correct the port in servers"
	case Foreign:
		return fmt.Sprintf("somebody else answers there: a certificate of %q, issued by %q, was shown", s.Shown, s.Issuer),
			"if that is your network's firewall, have it not look into TLS to this address; else the name or address leads to another machine"
	case Swallowed:
		return fmt.Sprintf("the connection opens, and TLS is not answered within %v", stepTime), "a firewall or proxy on the way takes the connection and lets nothing through; have it let TLS through"
	case Cut:
		return "the connection opens, and is cut when TLS begins", "a firewall looks into TLS, or another service listens there; have it let TLS through, or correct the port in servers"
	case Stranger:
		return "what answers there speaks TLS, and is no server of Netport's: a relay, or a web server", "correct the address or the port in servers"
	case OtherFault:
		return oneLine(s.Err), "ask the server's operator"
	}
	return s.Try.words()
}

// words says why a port was not reached.
func (t Try) words() (text, do string) {
	switch t.Fault {
	case None:
		return "", ""
	case Silent:
		return fmt.Sprintf("no answer within %v", stepTime), "a firewall drops it, or the machine is away: see what to open below"
	case Refused:
		return "refused", "nothing listens there, or a firewall rejects it: see what to open below"
	case AtProxy:
		return oneLine(t.Err), proxyAdvice(t.Err)
	case Unreachable:
		return "there is no way there: " + oneLine(t.Err), "see to this machine's network: its address, its default route, its own firewall"
	}
	return oneLine(t.Err), "see to this machine's network"
}

// host writes an address with its name.
func host(a netip.Addr, name string) string {
	if name == a.String() {
		return name
	}
	return fmt.Sprintf("%s (%s)", a, name)
}

func judgeRelays(r *Report, f Facts) {
	if len(f.Relays) == 0 {
		r.add("relays", Warning, "not known: no server has told this portal of one, and it holds no ticket for one", "see whether the server has a relay (netport-server relays), and the policy a forward of this portal's")
		return
	}
	done := make(map[string]bool)
	for _, one := range f.Relays {
		if done[one.Name] {
			continue
		}
		done[one.Name] = true
		var same []Relay
		for _, o := range f.Relays {
			if o.Name == one.Name {
				same = append(same, o)
			}
		}
		judgeRelay(r, f, same)
	}
}

// judgeTunnels says what the running tunnels show of the ports of single sessions, which
// nothing else does: those that found no way but the port that all sessions of a relay share
// could be faster.
func judgeTunnels(r *Report, f Facts) {
	const what = "session ports"
	known := false
	for _, t := range f.known().Status.Tunnels {
		at, err := netip.ParseAddrPort(t.Address)
		if err != nil {
			continue
		}
		var own []string // ways by ports of the session
		shared := false
		for _, w := range t.Ways {
			switch w.Path {
			case path.SessionPort.String(), path.PacketPort.String(), path.UDPLeg.String():
				if !slices.Contains(own, w.Path) {
					own = append(own, w.Path)
				}
			case path.SharedPort.String(), path.SharedTLS.String():
				shared = true
			}
		}
		if len(own) == 0 && (!shared || f.Proxy.Through(t.Address) != nil) {
			continue // it goes by no relay, or where no choice is
		}
		known = true
		if len(own) > 0 {
			r.add(what, OK, fmt.Sprintf("the tunnel to %s goes by them at relay %s: %s", t.Peer, t.Relay, strings.Join(own, ", ")), "")
			continue
		}
		r.add(what, Warning, fmt.Sprintf("the tunnel to %s goes by the port that all sessions of relay %s share (%s)", t.Peer, t.Relay, t.Path), "they are shut here or at "+t.Peer+": see what to open below")
		for _, protocol := range []string{"TCP", "UDP"} {
			r.open(Opening{Protocol: protocol, Host: host(at.Addr(), t.Relay), Ports: sessionPorts, Need: Faster, Why: "ports of single sessions, if the relay's operator has not chosen others"})
		}
	}
	switch {
	case known:
	case f.Met != nil:
		r.add(what, Warning, "not known: no tunnel could be opened: "+oneLine(f.Met), "netport-portal explain FORWARD says on which machine it fails")
	default:
		r.add(what, OK, "not known: only a tunnel shows them, and there is no daemon with a portal to meet", "")
	}
}

// sessionPorts are those of a relay that was configured as it comes.
const sessionPorts = "20000-32767"

// judgeRelay judges the addresses of one relay.
func judgeRelay(r *Report, f Facts, list []Relay) {
	tcp := func(o Relay) bool { return o.TCPPort != 0 && o.TCP.Fault == None && !f.elsewhere(o) }
	udp := func(o Relay) bool { return o.UDPPort != 0 && o.UDP.Fault == None }
	someTCP, someUDP := slices.ContainsFunc(list, tcp), slices.ContainsFunc(list, udp)
	another := slices.ContainsFunc(f.Relays, func(o Relay) bool { return tcp(o) || udp(o) })
	for _, o := range list {
		for _, way := range []struct {
			protocol    string
			port        uint16
			try         Try
			same, other bool // reached at another address; the other protocol is
			faster      string
		}{
			{"TCP", o.TCPPort, o.TCP, someTCP, someUDP, "bulk goes faster over TCP"},
			{"UDP", o.UDPPort, o.UDP, someUDP, someTCP, "datagrams go faster over UDP, and what is lost holds nothing else up"},
		} {
			what := fmt.Sprintf("relay %s %s", o.Name, way.protocol)
			odd := way.protocol == "TCP" && way.try.Fault == None && o.TLS.Fault != None
			text, do := way.try.words()
			if odd {
				text, do = f.oddity(o)
			} else if way.try.Fault == Refused && way.protocol == "TCP" && f.serverAt(o.Addr, 0) != "" {
				do += "; the server is on that machine: if the two share the port (take_over), the server is to listen there"
			}
			switch {
			case way.port == 0 && way.protocol == "TCP" && o.Proxy != "":
				r.add(what, Warning, "it has no port that all sessions share, and no other passes a proxy", "have the relay's operator set shared_tcp_port, best to 443")
			case way.port == 0:
			case way.try.Fault == Unreachable && len(list) > 1 && (someTCP || someUDP): // this machine has one IP version
			case odd && !f.elsewhere(o):
				r.add(what, Warning, fmt.Sprintf("%s port %d: %s", o.Addr, way.port, text), do)
			case way.try.Fault == None && !odd:
				r.add(what, OK, fmt.Sprintf("%s port %d, round trip %s", o.Addr, way.port, short(way.try.Took)), "")
			case way.same:
				r.add(what, OK, fmt.Sprintf("%s port %d: %s; not needed, for another of its addresses works", o.Addr, way.port, text), "")
			default:
				state, open := Warning, Opening{Protocol: way.protocol, Host: host(o.Addr, o.Name), Ports: fmt.Sprint(way.port)}
				switch {
				case way.other:
					text += "; the relay is reached the other way"
					open.Need, open.Why = Faster, way.faster
				case another:
					open.Need, open.Why = Reserve, "another relay"
				default:
					state, open.Need, open.Why = Failed, Needed, "the relay: one of its ports at least"
				}
				r.add(what, state, fmt.Sprintf("%s port %d: %s", o.Addr, way.port, text), do)
				if way.try.shut() {
					r.open(open)
				}
			}
		}
	}
}

// serverAt returns the name of the server that has proven itself at an address, over TCP; port 0 is
// any. It is empty if there is none.
func (f Facts) serverAt(a netip.Addr, port uint16) string {
	for _, s := range f.Servers {
		if s.Proven != "" && !s.UDP && s.Addr.Addr() == a && (port == 0 || s.Port == port) {
			return s.Proven
		}
	}
	return ""
}

// elsewhere reports whether it is certain that a relay is not where it is said to be: somebody else
// answers there, or the server does, and nobody takes what it hands over.
func (f Facts) elsewhere(o Relay) bool {
	return o.TLS.Fault == Stranger || o.TLS.Fault == Cut && f.serverAt(o.Addr, o.TCPPort) != ""
}

// oddity says what is wrong with a relay's shared port that opens, and where TLS does not.
func (f Facts) oddity(o Relay) (text, do string) {
	server := f.serverAt(o.Addr, o.TCPPort)
	switch {
	case o.TLS.Fault == Stranger && server != "":
		return fmt.Sprintf("%s answers there itself: it hands nothing over to the relay", server),
			"have the operator set hand_over of the server to the socket of the relay's take_over, or another shared_tcp_port for the relay"
	case o.TLS.Fault == Stranger:
		return "what answers there speaks TLS, and is no relay", "have the relay's operator see what listens at its shared_tcp_port, or set another"
	case o.TLS.Fault == Cut && server != "":
		return fmt.Sprintf("%s takes connections there, and closes those for the relay", server),
			"have the operator see whether the relay runs, with the server's hand_over as its take_over; the logs of both say more"
	}
	return "the connection opens, and TLS with the relay does not: " + oneLine(o.TLS.Err),
		"a firewall looks into TLS or holds it up, or another service listens there; have it let TLS through"
}

func judgeMTU(r *Report, f Facts) {
	const what = "MTU"
	known := false
	for _, o := range f.Relays {
		if o.MTU == 0 || o.UDP.Fault == Unreachable {
			continue
		}
		known = true
		state, do := OK, ""
		if o.MTU < wantMTU {
			state, do = Warning, "QUIC needs 1280 bytes: raise the MTU of the link, or go without (tunnels then go over TCP)"
		}
		r.add(what, state, fmt.Sprintf("packets of up to %d bytes to relay %s, as far as the routers on the way tell", o.MTU, o.Name), do)
	}
	if !known {
		r.add(what, OK, "unknown: it is measured towards relays that the portal holds a ticket for, on Linux", "")
	}
}

package topo

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Rule is one thing that a firewall does not let pass. It is an option of a router, where it judges what crosses
// between the LAN and the uplink, and of a host, where it judges what crosses the uplink. Dropped packets are counted
// (see counters.txt of a failed test) and not answered; a host's own program gets EPERM for what it may not send.
type Rule struct {
	in, out string // nftables matches of what is dropped, arriving by the uplink and leaving by it
}

// Rules of firewalls that are met.
var (
	// DropUnsolicited drops what arrives and belongs to nothing that was sent before.
	DropUnsolicited = Rule{in: "ct state new,invalid"}
	// DropBareSYN drops every TCP segment that arrives and asks for a connection, without looking at what was sent
	// before, as filters without memory do.
	DropBareSYN = Rule{in: "tcp flags & (syn | ack) == syn"}
	// WantACK drops every TCP segment that arrives without the ACK bit, as filters without memory do that let in what
	// seems to belong to a connection.
	WantACK = Rule{in: "tcp flags & ack != ack"}
	// BlockICMPErrors drops what routers say about packets that they could not deliver, so that a path's MTU is not told.
	BlockICMPErrors = Rule{in: "meta l4proto { icmp, ipv6-icmp } ct state related"}
	// BlockUDP drops all UDP, both ways.
	BlockUDP = Rule{in: "meta l4proto udp", out: "meta l4proto udp"}
	// BlockTCP drops all TCP, both ways.
	BlockTCP = Rule{in: "meta l4proto tcp", out: "meta l4proto tcp"}
	// BlockIPv6 drops all IPv6, both ways.
	BlockIPv6 = Rule{in: "meta nfproto ipv6", out: "meta nfproto ipv6"}
	// DropAll drops everything, both ways, as if the machine beyond were gone.
	DropAll = Rule{in: "meta nfproto { ipv4, ipv6 }", out: "meta nfproto { ipv4, ipv6 }"}
)

// AllowTCP drops TCP connections going out to any but these ports.
func AllowTCP(ports ...uint16) Rule {
	text := make([]string, len(ports))
	for i, port := range ports {
		text[i] = strconv.Itoa(int(port))
	}
	return Rule{out: "ct direction original tcp dport != { " + strings.Join(text, ", ") + " }"}
}

// DropPayload drops the TCP segments going out whose payload begins with these 1 to 8 bytes, as firewalls do that look into
// what they pass.
func DropPayload(begin string) Rule {
	return Rule{out: fmt.Sprintf("meta l4proto tcp @ih,0,%d %#x", 8*len(begin), begin)}
}

// BlockTCPPorts drops TCP to a range of ports, of connections that exist, too.
func BlockTCPPorts(first, last uint16) Rule {
	return Rule{out: fmt.Sprintf("tcp dport %d-%d", first, last)}
}

// BlockPorts drops TCP and UDP to these ports, of connections that exist, too.
func BlockPorts(first, last uint16) Rule {
	return Rule{out: fmt.Sprintf("meta l4proto { tcp, udp } th dport %d-%d", first, last)}
}

// BlockTCPTo drops all TCP to these IPv4 hosts, of connections that exist, too.
func BlockTCPTo(hosts ...netip.Addr) Rule { return blockTo("tcp", hosts) }

// BlockUDPTo drops all UDP to these IPv4 hosts.
func BlockUDPTo(hosts ...netip.Addr) Rule { return blockTo("udp", hosts) }

func blockTo(protocol string, hosts []netip.Addr) Rule {
	text := make([]string, len(hosts))
	for i, host := range hosts {
		text[i] = host.String()
	}
	return Rule{out: "ip daddr { " + strings.Join(text, ", ") + " } meta l4proto " + protocol}
}

func (r Rule) applyRouter(c *config) { c.rules = append(c.rules, r) }
func (r Rule) applyHost(c *config)   { c.rules = append(c.rules, r) }

// firewall is a node's rules and the hooks of the kernel where they stand.
type firewall struct {
	inHook, outHook string // "forward" and "forward" for a router, "input" and "output" for a host
	guardSelf       bool   // a NAT drops what arrives unasked for itself
}

// SetRules replaces the firewall's rules, at once and for connections that exist, too. A router with a NAT goes on
// dropping what arrives unasked.
func (n *Node) SetRules(rules ...Rule) {
	n.t.Helper()
	var in, out, self []string
	for _, rule := range rules {
		if rule.in != "" {
			in = append(in, fmt.Sprintf("iifname %q %s counter drop", n.device, rule.in))
		}
		if rule.out != "" {
			out = append(out, fmt.Sprintf("oifname %q %s counter drop", n.device, rule.out))
		}
	}
	if n.firewall.guardSelf {
		// Without the rule for itself, a packet that no one asked for makes an entry in the NAT's table, and the inside
		// host that sends to its origin later is mapped to another port.
		self = []string{fmt.Sprintf("iifname %q ct state new,invalid counter drop", n.device)}
		in = append(in, fmt.Sprintf("iifname %q ct state new,invalid ct status & dnat != dnat counter drop", n.device))
	}
	var b strings.Builder
	b.WriteString("table inet firewall\ndelete table inet firewall\ntable inet firewall {\n")
	writeChain(&b, "in", "type filter hook "+n.firewall.inHook+" priority filter", in)
	writeChain(&b, "out", "type filter hook "+n.firewall.outHook+" priority filter", out)
	writeChain(&b, "self", "type filter hook input priority filter", self)
	b.WriteString("}\n")
	n.nft(b.String())
}

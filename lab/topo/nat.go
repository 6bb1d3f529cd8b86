package topo

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// Behaviour is how a NAT's mapping or filtering depends on the outside endpoint (RFC 4787, sections 4.1 and 5).
type Behaviour int

const (
	// EndpointIndependent mapping gives an inside endpoint one outside endpoint for all peers; filtering lets any
	// peer in through a mapping.
	EndpointIndependent Behaviour = iota + 1
	// AddressDependent mapping gives one per peer address; filtering lets in the addresses that were sent to.
	AddressDependent
	// AddressAndPortDependent mapping gives one per peer address and port; filtering lets in the endpoints that were
	// sent to.
	AddressAndPortDependent
)

// NAT is a router's network address and port translation of IPv4, for TCP and UDP alike. It is a RouterOption.
//
// A router with a NAT drops what arrives unasked, for itself and for IPv6 hosts behind it. It keeps the inside port
// where it can; two inside hosts that use one port towards different peers share it.
type NAT struct {
	Mapping   Behaviour
	Filtering Behaviour
	// Hairpin lets inside hosts reach each other by their outside endpoints (RFC 4787, section 6): each sees the other's
	// outside endpoint. What comes from inside is not filtered. It wants mapping that does not depend on the endpoint.
	Hairpin bool
	// UDPTimeout ends a UDP mapping that carried nothing for so long, in whole seconds. 0 keeps the kernel's 30 s
	// until both sides have sent, then 120 s.
	UDPTimeout time.Duration
}

// The NATs that are met most, by the names of RFC 3489.
var (
	FullCone       = NAT{Mapping: EndpointIndependent, Filtering: EndpointIndependent}
	RestrictedCone = NAT{Mapping: EndpointIndependent, Filtering: AddressDependent}
	PortRestricted = NAT{Mapping: EndpointIndependent, Filtering: AddressAndPortDependent}
	Symmetric      = NAT{Mapping: AddressAndPortDependent, Filtering: AddressAndPortDependent}
)

func (n NAT) applyRouter(c *config) { c.nat = &n }

// learnedFor is how long filters and mappings outlive the packet that made them: longer than the kernel's own entry,
// which decides.
const learnedFor = 5 * time.Minute

// rules is the NAT as nftables rules. The kernel's tracking alone maps new peers from one outside port as long as
// that is free, and filters by address and port. What differs from that is learnt from each packet that leaves, after
// its translation: which inside endpoint an outside port stands for, and whom it has sent to. lan is the inside
// network and wan the NAT's outside address.
func (n NAT) rules(lan netip.Prefix, wan netip.Addr) (string, error) {
	timeout := learnedFor
	if n.UDPTimeout > 0 {
		timeout = n.UDPTimeout
	}
	var prerouting, postrouting, learn []string
	switch n.Mapping {
	case EndpointIndependent:
		postrouting = []string{`oifname "wan" masquerade`}
	case AddressDependent:
		postrouting = []string{
			`oifname "wan" meta l4proto { tcp, udp } masquerade to : meta l4proto . ip saddr . th sport . ip daddr map @ports`,
			`oifname "wan" masquerade fully-random`,
		}
		learn = append(learn, `ct direction original update @ports { meta l4proto . ct original ip saddr . ct original proto-src . ip daddr : th sport }`)
	case AddressAndPortDependent:
		postrouting = []string{`oifname "wan" masquerade fully-random`}
	default:
		return "", fmt.Errorf("NAT has no mapping behaviour %d", n.Mapping)
	}
	switch n.Filtering {
	case EndpointIndependent:
		prerouting = []string{`iifname "wan" meta l4proto { tcp, udp } dnat ip to meta l4proto . th dport map @inside`}
	case AddressDependent:
		prerouting = []string{`iifname "wan" meta l4proto . th dport . ip saddr @reached dnat ip to meta l4proto . th dport map @inside`}
	case AddressAndPortDependent:
	default:
		return "", fmt.Errorf("NAT has no filtering behaviour %d", n.Filtering)
	}
	if n.Hairpin && n.Mapping != EndpointIndependent {
		return "", fmt.Errorf("NAT hairpins with mapping behaviour %d", n.Mapping)
	}
	if n.Hairpin {
		prerouting = append(prerouting, fmt.Sprintf(`iifname "lan" ip daddr %v meta l4proto { tcp, udp } dnat ip to meta l4proto . th dport map @inside`, wan))
		postrouting = append(postrouting, fmt.Sprintf(`oifname "lan" ip saddr %v ct status dnat snat to %v`, lan, wan))
	}
	if prerouting != nil {
		learn = append(learn,
			`ct direction original update @inside { meta l4proto . th sport : ct original ip saddr . ct original proto-src }`,
			`ct direction reply update @inside { meta l4proto . th sport : ct reply ip saddr . ct reply proto-src }`,
			`update @reached { meta l4proto . th sport . ip daddr }`)
	}
	var b strings.Builder
	memory := fmt.Sprintf("flags dynamic,timeout\n size 65536\n timeout %ds", int(timeout.Seconds()))
	fmt.Fprintf(&b, "table ip nat {\n")
	fmt.Fprintf(&b, "map ports {\n typeof meta l4proto . ip saddr . th sport . ip daddr : th sport\n %s\n}\n", memory)
	fmt.Fprintf(&b, "map inside {\n typeof meta l4proto . th dport : ip saddr . th sport\n %s\n}\n", memory)
	fmt.Fprintf(&b, "set reached {\n typeof meta l4proto . th dport . ip saddr\n %s\n}\n", memory)
	writeChain(&b, "prerouting", "type nat hook prerouting priority dstnat", prerouting)
	writeChain(&b, "postrouting", "type nat hook postrouting priority srcnat", postrouting)
	for i := range learn {
		learn[i] = `iifname "lan" oifname "wan" meta l4proto { tcp, udp } ` + learn[i]
	}
	writeChain(&b, "learn", "type filter hook postrouting priority srcnat + 10", learn)
	b.WriteString("}\n")
	return b.String(), nil
}

func writeChain(b *strings.Builder, name, hook string, rules []string) {
	fmt.Fprintf(b, "chain %s {\n %s\n", name, hook)
	for _, rule := range rules {
		fmt.Fprintf(b, " %s\n", rule)
	}
	b.WriteString("}\n")
}

// startNAT loads the NAT into the router.
func (r *Router) startNAT() {
	r.t.Helper()
	rules, err := r.nat.rules(r.lan4, r.at.addr4)
	if err != nil {
		r.t.Fatalf("%s: %v", r.name, err)
	}
	r.nft(rules)
	if seconds := int(r.nat.UDPTimeout.Seconds()); seconds > 0 {
		r.Sysctl("netfilter/nf_conntrack_udp_timeout", fmt.Sprint(seconds))
		r.Sysctl("netfilter/nf_conntrack_udp_timeout_stream", fmt.Sprint(seconds))
	}
}

// ForgetMappings makes the router's NAT and firewall lose all they remember of connections, as a restart of it does.
func (r *Router) ForgetMappings() {
	r.t.Helper()
	if r.nat == nil {
		r.t.Fatalf("%s has no NAT", r.name)
	}
	r.nft("flush map ip nat ports\nflush map ip nat inside\nflush set ip nat reached\n")
	r.netlink(func(h *netlink.Handle) error { return h.ConntrackTableFlush(netlink.ConntrackTable) })
}

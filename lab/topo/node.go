package topo

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/netport/netport/lab/capture"
	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/ns"
)

// families says which IP versions a node has.
type families struct{ v4, v6 bool }

func (f families) without(g families) families { return families{v4: f.v4 && !g.v4, v6: f.v6 && !g.v6} }

// Node is what hosts and routers share: a namespace and one uplink. Its methods belong to the test's goroutine, but for
// those that say otherwise.
type Node struct {
	lab      *Lab
	t        testing.TB
	name     string
	parent   *Router // nil for the internet
	families families
	space    *ns.Namespace

	device    string // the uplink's, in the namespace
	at        place
	emulated  *link.Link // nil if the uplink is a veth pair
	captures  []*capture.Capture
	firewall  firewall
	processes int // started so far, to number their logs
}

// Name is the node's name.
func (n *Node) Name() string { return n.name }

// Addr is the node's address on its uplink: IPv4 if it has one, else IPv6.
func (n *Node) Addr() netip.Addr {
	if n.at.addr4.IsValid() {
		return n.at.addr4
	}
	return n.at.addr6
}

// Addr4 is the node's IPv4 address on its uplink; the zero Addr if it has none.
func (n *Node) Addr4() netip.Addr { return n.at.addr4 }

// Addr6 is the node's IPv6 address on its uplink; the zero Addr if it has none.
func (n *Node) Addr6() netip.Addr { return n.at.addr6 }

// Device is the name of the uplink's device in the node's namespace.
func (n *Node) Device() string { return n.device }

// Do runs f inside the node's network namespace, on the calling goroutine. Sockets that f opens stay there for life;
// goroutines that f starts do not run there. It may be called from any goroutine.
func (n *Node) Do(f func()) {
	n.t.Helper()
	if err := n.space.Do(f); err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
}

// Sysctl sets a value under net in the node's namespace, for instance Sysctl("ipv4/tcp_congestion_control", "reno").
func (n *Node) Sysctl(key, value string) {
	n.t.Helper()
	if err := n.space.Sysctl(key, value); err != nil {
		n.t.Fatalf("%s: set net/%s to %s: %v", n.name, key, value, err)
	}
}

// netlink runs f with a handle on the node's links and ends the test if it fails.
func (n *Node) netlink(f func(*netlink.Handle) error) {
	n.t.Helper()
	h, err := n.space.Netlink()
	if err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
	defer h.Close()
	if err := f(h); err != nil {
		n.t.Fatalf("%s: configure links: %v", n.name, err)
	}
}

// nft loads a ruleset.
func (n *Node) nft(rules string) {
	n.t.Helper()
	cmd := n.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("%s: load rules: %v\n%s\n%s", n.name, err, out, rules)
	}
}

// quietNetwork sets what every namespace of the lab needs before it has links.
func (n *Node) quietNetwork() {
	n.t.Helper()
	for _, set := range [][2]string{
		{"ipv6/conf/all/accept_dad", "0"}, // or addresses are tentative for a second
		{"ipv6/conf/default/accept_dad", "0"},
		{"ipv6/conf/default/accept_ra", "0"},
		{"ipv4/ping_group_range", "0 2147483647"}, // ping without rights, as on Debian
	} {
		n.Sysctl(set[0], set[1])
	}
}

// close ends the node when the test ends. What it leaves behind is kept if the test failed.
func (n *Node) close() {
	failed := n.t.Failed()
	if failed {
		n.lab.keepCounters()
	}
	var err error
	if n.emulated != nil {
		err = n.emulated.Close()
	}
	for _, c := range n.captures {
		err = errors.Join(err, c.Close())
	}
	if err = errors.Join(err, n.space.Close()); err != nil {
		n.t.Errorf("end %s: %v", n.name, err)
	}
	if !failed {
		if err := os.RemoveAll(n.artifactDir()); err != nil {
			n.t.Errorf("end %s: %v", n.name, err)
		}
	}
}

// artifactDir is where the node's captures, logs and counters lie.
func (n *Node) artifactDir() string { return filepath.Join(n.lab.artifacts, n.name) }

// artifact makes a file of the node that is kept if the test fails.
func (n *Node) artifact(name string) *os.File {
	n.t.Helper()
	if err := os.MkdirAll(n.artifactDir(), 0o755); err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
	f, err := os.Create(filepath.Join(n.artifactDir(), name))
	if err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
	return f
}

// keepCounters keeps those of all nodes, before the first of them ends and takes its links with it.
func (l *Lab) keepCounters() {
	if l.countersKept {
		return
	}
	l.countersKept = true
	for _, n := range l.nodes {
		n.keepCounters()
	}
}

// keepCounters writes the node's network counters, sockets and rules beside its logs.
func (n *Node) keepCounters() {
	f := n.artifact("counters.txt")
	defer f.Close()
	for _, args := range [][]string{
		{"cat", "/proc/net/dev", "/proc/net/snmp", "/proc/net/snmp6", "/proc/net/netstat"},
		{"cat", "/proc/net/softnet_stat"},
		{"ip", "-s", "-s", "link"}, {"ip", "neigh"},
		{"cat", "/proc/net/nf_conntrack"},
		{"cat", "/proc/net/tcp", "/proc/net/udp", "/proc/net/tcp6", "/proc/net/udp6"},
		{"nft", "list", "ruleset"},
	} {
		out, err := n.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			out = append(out, err.Error()+"\n"...) // a file may not exist on this kernel
		}
		if _, err := fmt.Fprintf(f, "$ %s\n%s\n", strings.Join(args, " "), out); err != nil {
			n.t.Logf("%s: keep counters: %v", n.name, err)
		}
	}
	if n.emulated != nil {
		up, down := n.emulated.Counters()
		if _, err := fmt.Fprintf(f, "link, sent by %s: %v\nlink, sent to %s: %v\n", n.name, up, n.name, down); err != nil {
			n.t.Logf("%s: keep counters: %v", n.name, err)
		}
	}
}

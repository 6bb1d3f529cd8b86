// Package topo builds networks of namespaces for tests: an internet, routers with NATs and firewalls, hosts.
//
//	l := topo.New(t)
//	server := l.Public("server")
//	home := l.Router("home", topo.PortRestricted)
//	office := l.Router("office", topo.Symmetric, topo.BlockUDP, topo.Uplink(link.Shape{Delay: 20 * time.Millisecond}))
//	alice, bob := home.Host("alice"), office.Host("bob")
//
// makes
//
//	alice --- home (NAT) ---+           +--- office (NAT, no UDP) --- bob
//	                        +-- inet ---+
//	            server -----+
//
// The internet is one router. Every node hangs on it, or on a router's LAN, by one uplink: device "eth0" of a host,
// "wan" of a router. The link is a veth pair, or, with the option Uplink, an emulated link of package link. A router
// under a router is a carrier-grade NAT. A router's LAN is a bridge, "lan", that its hosts share.
//
// Helpers take the test from New and end it when something cannot be built. Everything is removed with the test. When
// the test failed, t.ArtifactDir holds what each node's uplink carried (pcap), what its programs wrote, and its
// counters; run go test with -artifacts to keep that directory.
package topo

import (
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/ns"
	"github.com/netport/netport/lab/stage"
)

var seedFlag = flag.Uint64("lab.seed", 0, "seed of the emulated links and of the moments of faults; 0 picks one")

// Lab is one test's network. Its methods belong to the test's goroutine, but for those that say otherwise.
type Lab struct {
	t         testing.TB
	seed      uint64
	capturing bool
	dir       string // for the files of nodes, readable by every user
	artifacts string // logs, captures and counters; emptied when the test passes
	inet      *Router
	nodes     []*Node
	networks  int // networks numbered so far: uplinks of the internet and LANs

	countersKept bool // of the failed test
}

// Dice are random numbers from the lab's seed, which a test that fails names: others for each name, the same for the same.
func (l *Lab) Dice(name string) *rand.Rand {
	sum := fnv.New64a()
	sum.Write([]byte(name))
	return rand.New(rand.NewPCG(l.seed, sum.Sum64()))
}

// Option changes a whole lab.
type Option func(*Lab)

// NoCapture leaves out the packet captures. For benchmarks, where a copy of each packet would count.
func NoCapture() Option { return func(l *Lab) { l.capturing = false } }

// New makes a lab with nothing but the internet in it. Needs root. From then on the test runs beside others, as
// package stage tells.
func New(t testing.TB, options ...Option) *Lab {
	t.Helper()
	need.Root(t)
	need.Program(t, "nft")
	stage.Enter(t)
	l := &Lab{t: t, seed: *seedFlag, capturing: true}
	if l.seed == 0 {
		l.seed = rand.Uint64()
	}
	for _, option := range options {
		option(l)
	}
	l.makeDirs()
	l.inet = &Router{Node: l.newNode("inet", nil, families{v4: true, v6: true})}
	l.inet.forwardPackets()
	return l
}

// Internet returns the router that all public nodes hang on; its devices carry their names.
func (l *Lab) Internet() *Router { return l.inet }

// Public adds a host with a public address of its own.
func (l *Lab) Public(name string, options ...HostOption) *Host {
	l.t.Helper()
	return l.inet.Host(name, options...)
}

// Router adds a router with a public address of its own.
func (l *Lab) Router(name string, options ...RouterOption) *Router {
	l.t.Helper()
	return l.inet.Router(name, options...)
}

// nodeName fits a device name (15 bytes) and a file name.
var nodeName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)

func (l *Lab) newNode(name string, parent *Router, f families) *Node {
	l.t.Helper()
	if !nodeName.MatchString(name) || name == "lan" || name == "wan" || name == "lo" {
		l.t.Fatalf("add node %q: want a name of 1 to 15 of a-z, 0-9 and -, other than lan, wan and lo", name)
	}
	for _, other := range l.nodes {
		if other.name == name {
			l.t.Fatalf("add node %q: there is one already", name)
		}
	}
	space, err := ns.New()
	if err != nil {
		l.t.Fatalf("add node %q: %v", name, err)
	}
	n := &Node{lab: l, t: l.t, name: name, parent: parent, families: f, space: space}
	l.nodes = append(l.nodes, n)
	l.t.Cleanup(n.close)
	n.quietNetwork()
	return n
}

// network numbers the lab's networks from 1, which gives each its own addresses.
func (l *Lab) network() int {
	l.networks++
	if l.networks > 250 {
		l.t.Fatal("add a network to the lab: there is room for 250")
	}
	return l.networks
}

// The internet's networks lie outside all reserved ranges, since programs under test treat those specially.
func publicPrefix(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{20, 0, byte(n), 0}), 24)
}

func privatePrefix(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(n), 0}), 24)
}

func globalPrefix(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x2a, 0x0f, 0, 0x20, 0, byte(n)}), 64)
}

// hostAddr is the address number i of a network.
func hostAddr(p netip.Prefix, i int) netip.Addr {
	b := p.Addr().AsSlice()
	b[len(b)-1] += byte(i)
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

// makeDirs makes the directory for files of hosts, whose path is short (a Unix socket's has 107 bytes at most) and open
// to every user, and the one for what is kept of a failed test.
func (l *Lab) makeDirs() {
	l.t.Helper()
	removeStale(l.t)
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
	if err != nil {
		l.t.Fatalf("make the lab's directory: %v", err)
	}
	l.dir, l.artifacts = dir, l.t.ArtifactDir()
	l.t.Cleanup(func() {
		if l.t.Failed() {
			l.t.Logf("lab: seed %d (-lab.seed); captures, logs and counters in %s (kept with -artifacts)", l.seed, l.artifacts)
		}
		if err := os.RemoveAll(dir); err != nil {
			l.t.Errorf("remove the lab's directory: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		l.t.Fatalf("make the lab's directory: %v", err)
	}
}

const dirPrefix = "netport-lab-"

// removeStale removes what test processes that were killed left behind: detached programs, directories.
func removeStale(t testing.TB) {
	t.Helper()
	if err := ns.KillStale(); err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	if err != nil {
		t.Fatalf("look for stale lab directories: %v", err)
	}
	for _, dir := range dirs {
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(dir), dirPrefix+"%d-", &pid); err != nil {
			continue // not of a lab
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); !os.IsNotExist(err) {
			continue // in use
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Logf("remove stale lab directory: %v", err)
		}
	}
}

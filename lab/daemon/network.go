// Package daemon runs Netport's own programs on the hosts of a lab: a server, relays and portals, each in its host's
// namespace, as an ordinary user.
//
//	n := daemon.New(t, l.Public("server"))
//	n.Relay(l.Public("relay"))
//	laptop, factory := n.Portal(home.Host("laptop")), n.Portal(office.Host("factory"))
//	n.Apply(`
//		[[forward]]
//		name = "web"
//		from = "laptop tcp://127.0.0.1:8080"
//		to   = "factory tcp://127.0.0.1:80"
//	`)
//	laptop.WaitUp("web")
//
// The programs are built from the folders beside the lab's, once in a test process, unless the environment variable
// NETPORT_BIN names a folder that has them. Every daemon carries its host's name. All is set up by the commands that
// an operator would use, and what a daemon is asked, it is asked by its command line. Helpers take the test from New
// and end it when something does not work; daemons stop with the test, and topo keeps their logs if it failed.
package daemon

import (
	"fmt"
	"strings"
	"testing"

	"github.com/netport/netport/lab/topo"
)

// Domain is that of every identity in the lab.
const Domain = "example.org"

// User is whom the daemons and their commands run as.
const User = "nobody"

// Network is one server with its relays and portals. Its methods belong to the test's goroutine.
type Network struct {
	Server *Server
	t      testing.TB
	bin    string // folder of the programs
}

// New makes a network with a running server on the host, and no policy but that nothing is allowed.
func New(t testing.TB, host *topo.Host, options ...Option) *Network {
	t.Helper()
	n := &Network{t: t, bin: host.Dir()}
	if err := Install(n.bin); err != nil {
		t.Fatal(err)
	}
	host.Sysctl("ipv4/ip_unprivileged_port_start", "0") // the server's port is 443
	n.Server = &Server{n.daemon("server", host)}
	init := n.Server.unconfigured("init", "--dir", n.Server.dir, "--domain", Domain, "--address", host.Addr().String())
	if _, err := n.Server.output(init); err != nil {
		t.Fatal(err)
	}
	n.Server.configure(options)
	n.Server.Start()
	return n
}

// Relay adds a relay, starts it and waits until the server has it.
func (n *Network) Relay(host *topo.Host, options ...Option) *Relay {
	n.t.Helper()
	r := &Relay{Daemon: n.daemon("relay", host), ready: n.Server.relayReady}
	n.Server.Run("issue", "relay", r.name, "--address", addresses(host), "--out", r.dir)
	r.setUp(options)
	return r
}

// addresses are the host's, as a list for the command line.
func addresses(host *topo.Host) string {
	var texts []string
	for _, addr := range host.Addrs() {
		texts = append(texts, addr.String())
	}
	return strings.Join(texts, ",")
}

// Portal adds a portal, starts it and waits until it is connected to the server. When it is stopped, its connections get
// no time to finish, unless an option says otherwise.
func (n *Network) Portal(host *topo.Host, options ...Option) *Portal {
	n.t.Helper()
	p := &Portal{n.daemon("portal", host)}
	n.Server.Run("issue", "portal", p.name, "--out", p.dir)
	// Most stories are about relays; those about direct paths say Set("direct", true).
	p.configure(append([]Option{Set("drain", "0s"), Set("direct", false)}, options...))
	p.Start()
	return p
}

// Program is the file of a role's program, which every user can run.
func (n *Network) Program(role string) string { return programFile(n.bin, role) }

func (n *Network) daemon(role string, host *topo.Host) *Daemon {
	n.t.Helper()
	return newDaemon(n.t, n.bin, role, host)
}

// Apply makes the policy the server's: the text of a policy file without its first line, the domain. The portals have
// their new grants some moments later (see Portal.WaitUp).
func (n *Network) Apply(policy string) {
	n.t.Helper()
	if out, err := n.TryApply(policy); err != nil {
		n.t.Fatalf("apply a policy: %v\n%s", err, out)
	}
}

// TryApply is Apply for a policy that may be refused: it returns what the command printed.
func (n *Network) TryApply(policy string) (string, error) {
	n.t.Helper()
	file := n.Server.host.WriteFile("policy.toml", fmt.Sprintf("domain = %q\n", Domain)+policy)
	out, err := n.Server.Command("policy", "apply", file).CombinedOutput()
	return string(out), err
}

// Package dnsmasq runs dnsmasq on hosts of a lab: a name server that others have written.
package dnsmasq

import (
	"fmt"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/topo"
)

// Start runs dnsmasq at a port of all of a host's addresses, as nobody, and waits until it is there. It knows these
// records, as its options name them ("--host-record=name,address"), and asks nobody about others.
func Start(t testing.TB, host *topo.Host, port uint16, records ...string) *topo.Process {
	t.Helper()
	need.Program(t, "dnsmasq")
	host.Sysctl("ipv4/ip_unprivileged_port_start", "0")
	args := []string{"--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", fmt.Sprintf("--port=%d", port), "--user=", "--group=",
		"--pid-file=", "--log-facility=-", "--edns-packet-max=1232"}
	p := host.Start(host.Command("dnsmasq", append(args, records...)...).As("nobody"))
	p.WaitLog("started")
	await.Listening(t, host, "udp", port)
	return p
}

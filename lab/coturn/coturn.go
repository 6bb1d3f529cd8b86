// Package coturn runs coturn on hosts of a lab: a STUN and TURN server, and a client that finds out what NATs do, which
// others have written.
package coturn

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/topo"
)

// Port is where coturn listens.
const Port = 3478

// Start runs coturn at addresses of a host, for anybody and with nothing but UDP, and waits until it is there. Where two
// addresses are of one IP version it is a STUN server that finds out what NATs do (RFC 5780).
func Start(t testing.TB, host *topo.Host, addrs ...netip.Addr) *topo.Process {
	t.Helper()
	need.Program(t, "turnserver")
	cmd := host.Command("turnserver", "-n", "--no-auth", "--no-tcp", "--no-tls", "--no-dtls", "--no-cli", "--log-file", "stdout",
		"--pidfile", filepath.Join(host.Dir(), "turnserver.pid"), "--listening-port", fmt.Sprint(Port), "--relay-ip", addrs[0].String())
	for _, a := range addrs {
		cmd.Args = append(cmd.Args, "--listening-ip", a.String())
	}
	p := host.Start(cmd)
	await.Listening(t, host, "udp", Port)
	return p
}

// NAT is what a NAT does, in coturn's words, for instance "Endpoint Independent".
type NAT struct {
	Mapping, Filtering string
	None               bool // there is no NAT
}

// Discover has coturn's client find out what is between a host's address and coturn at another address.
func Discover(t testing.TB, host *topo.Host, from, to netip.Addr) NAT {
	t.Helper()
	need.Program(t, "turnutils_natdiscovery")
	var n NAT
	// Filters first: what is sent to another address to find out how the NAT maps lets that in.
	for _, one := range []struct {
		flag, what string
		word       *string
	}{{"-f", " Filtering!", &n.Filtering}, {"-m", " Mapping", &n.Mapping}} {
		out := await.Success(t, host.Command("turnutils_natdiscovery", one.flag, "-L", from.String(), to.String()))
		for line := range strings.Lines(out) {
			line = strings.TrimSpace(line)
			switch word, _, found := strings.Cut(line, one.what); {
			case !found || strings.HasPrefix(line, "-="): // a heading
			case strings.HasPrefix(line, "No NAT! ("):
				n.None, *one.word = true, strings.TrimPrefix(word, "No NAT! (")
			default:
				*one.word = strings.TrimPrefix(word, "NAT with ")
			}
		}
		if *one.word == "" {
			t.Fatalf("%s: coturn's client does not say what the NAT does:\n%s", host.Name(), out)
		}
	}
	return n
}

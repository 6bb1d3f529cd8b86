package e2e

import (
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/topo"
)

// behind is a network behind a router with these options, IPv4 only.
func behind(options ...topo.RouterOption) site {
	return site{router: append(options, topo.IPv4Only())}
}

// carrierGrade is a home behind a provider's NAT.
func carrierGrade(provider, home topo.NAT) site {
	return site{provider: []topo.RouterOption{provider, topo.LAN("100.64.0.0/24"), topo.IPv4Only()}, router: []topo.RouterOption{home}}
}

// What two private networks may be like, and the path on which their portals meet.
func TestForwardsPassNATsAndFirewalls(t *testing.T) {
	t.Parallel()
	sharedPort := daemon.Set("shared_tcp_port", 443)
	for _, tt := range []struct {
		name         string
		home, office site
		relay        []daemon.Option
		path         string
	}{
		{"full cone, restricted cone", behind(topo.FullCone), behind(topo.RestrictedCone), nil, "relay"},
		{"port restricted twice", behind(topo.PortRestricted), behind(topo.PortRestricted), nil, "relay"},
		{"symmetric twice", behind(topo.Symmetric), behind(topo.Symmetric), nil, "relay"},
		{"carrier-grade", carrierGrade(topo.Symmetric, topo.PortRestricted), behind(topo.PortRestricted), nil, "relay"},
		{
			"firewalls that drop what is unasked",
			behind(topo.PortRestricted, topo.DropBareSYN, topo.DropUnsolicited),
			behind(topo.DropBareSYN, topo.DropUnsolicited), nil, "relay",
		},
		{"no UDP", behind(topo.PortRestricted, topo.BlockUDP), behind(topo.Symmetric, topo.BlockUDP), nil, "relay"},
		{
			"TCP to port 443 only, at home",
			behind(topo.PortRestricted, topo.BlockUDP, topo.AllowTCP(443)), commonOffice,
			[]daemon.Option{sharedPort}, "relay-shared",
		},
		{
			"TCP to port 443 only, at the office",
			commonHome, behind(topo.PortRestricted, topo.BlockUDP, topo.AllowTCP(443)),
			[]daemon.Option{sharedPort}, "relay",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorldOf(t, tt.home, tt.office, tt.relay...)
			w.checkForwards(t)
			w.wantPath(t, tt.path)
		})
	}
}

// wantPath wants laptop to have one tunnel, on that path.
func (w *world) wantPath(t *testing.T, path string) {
	t.Helper()
	tunnels := w.laptop.Status().Tunnels
	if len(tunnels) != 1 || tunnels[0].Path != path || !tunnels[0].Up {
		t.Errorf("tunnels %+v, want one that is up, on the path %q", tunnels, path)
	}
}

// A firewall that looks into connections and ends those that are not TLS, or has them run into nothing: only TLS to port 443
// gets out. The first client pays for that little more than a second.
func TestForwardsPassAFirewallThatWantsTLS(t *testing.T) {
	t.Parallel()
	for name, verdict := range map[string]string{"that drops": "drop", "that resets": "reject with tcp reset"} {
		t.Run(name, func(t *testing.T) {
			w := newWorldOf(t, behind(topo.PortRestricted, topo.BlockUDP, topo.AllowTCP(443)), commonOffice, daemon.Set("shared_tcp_port", 443))
			// The first byte of a connection decides: 22 is a handshake of TLS. A packet of 80 bytes or fewer has no payload.
			w.home.Run("nft", `table inet inspection {
				chain out {
					type filter hook forward priority filter + 10
					iifname "lan" tcp dport 443 ct mark 0 meta length > 80 @ih,0,8 22 ct mark set 1
					iifname "lan" tcp dport 443 ct mark 0 meta length > 80 ct mark set 2
					ct mark 2 counter `+verdict+`
				}
			}`)
			w.laptop.Restart() // its connection to the server was not inspected from the first byte
			w.allowMeters(t)
			w.opensWithin(t, 3*time.Second)
			w.wantPath(t, "relay-tls")
		})
	}
}

// opensWithin has a first client come, for whom the tunnel is opened, and be answered in time.
func (w *world) opensWithin(t *testing.T, most time.Duration) {
	t.Helper()
	ln := w.plc.Listen(meterPort)
	start := time.Now()
	client := w.clients()[0].dial(t, "tcp", entryPort)
	await.RoundTrip(t, client, await.Accept(t, ln))
	took := time.Since(start)
	t.Logf("answered after %v", took)
	if took > most {
		t.Errorf("answered after %v, want %v at most", took, most)
	}
}

// A home that is reached by satellite, over a line that loses packets: whatever gets through there, patience is not given up.
func TestTunnelComesUpBySatellite(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string][]topo.Rule{"all passes": nil, "no UDP": {topo.BlockUDP}} {
		t.Run(name, func(t *testing.T) {
			home := behind(topo.PortRestricted, topo.Uplink(link.Shape{Delay: 300 * time.Millisecond, Loss: 0.03}))
			w := newWorldOf(t, home, commonOffice)
			w.home.SetRules(rules...)
			w.allowMeters(t)
			w.opensWithin(t, 15*time.Second)
		})
	}
}

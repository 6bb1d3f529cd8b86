package e2e

import (
	"testing"

	"github.com/netport/netport/lab/daemon"
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

// A firewall that looks into connections and ends those that are not TLS: only TLS to port 443 gets out.
func TestForwardsPassAFirewallThatWantsTLS(t *testing.T) {
	w := newWorldOf(t, behind(topo.PortRestricted, topo.BlockUDP, topo.AllowTCP(443)), commonOffice, daemon.Set("shared_tcp_port", 443))
	// The first byte of a connection decides: 22 is a handshake of TLS. A packet of 80 bytes or fewer has no payload.
	w.home.Run("nft", `table inet inspection {
		chain out {
			type filter hook forward priority filter + 10
			iifname "lan" tcp dport 443 ct mark 0 meta length > 80 @ih,0,8 22 ct mark set 1
			iifname "lan" tcp dport 443 ct mark 0 meta length > 80 ct mark set 2
			ct mark 2 counter drop
		}
	}`)
	w.laptop.Restart() // its connection to the server was not inspected from the first byte
	w.checkForwards(t) // the first client waits until the portal goes on to the next way
	w.wantPath(t, "relay-tls")
}

package mapping

import (
	"fmt"
	"strings"
	"testing"

	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/topo"
)

// protocol is by what a router lets ports be mapped.
type protocol string

const (
	pcp  protocol = "PCP"
	pmp  protocol = "NAT-PMP"
	upnp protocol = "UPnP IGD"
)

// chains are those that miniupnpd fills, in a table of its own.
const chains = `table inet miniupnpd {
	chain forward { type filter hook forward priority -10; jump miniupnpd; }
	chain prerouting { type nat hook prerouting priority -110; jump prerouting_miniupnpd; }
	chain postrouting { type nat hook postrouting priority 90; jump postrouting_miniupnpd; }
	chain miniupnpd {}
	chain prerouting_miniupnpd {}
	chain postrouting_miniupnpd {}
}
`

// startMiniupnpd has a router map ports by one protocol.
func startMiniupnpd(t *testing.T, r *topo.Router, by protocol) {
	t.Helper()
	need.Program(t, "miniupnpd")
	rules := chains
	yes := map[bool]string{true: "yes", false: "no"}
	if by == pmp { // miniupnpd answers both at one port; packets of PCP, version 2, do not get there
		rules += "table inet version {\n chain in {\n type filter hook input priority 0\n udp dport 5351 @th,64,8 2 drop\n }\n}\n"
	}
	r.Run("nft", "-f", r.WriteFile("chains.nft", rules))
	config := fmt.Sprintf(`ext_ifname=wan
listening_ip=lan
http_port=5000
enable_upnp=%s
enable_natpmp=%s
secure_mode=yes
upnp_table_name=miniupnpd
upnp_nat_table_name=miniupnpd
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
uuid=4c6a1bd3-f1f1-4c2e-8b5e-5bd5e8d6f9b1
allow 1024-65535 0.0.0.0/0 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
`, yes[by == upnp], yes[by != upnp])
	r.Run("ip", "route", "add", "239.0.0.0/8", "dev", "lan")
	p := r.Start(r.Command("miniupnpd", "-d", "-f", r.WriteFile("miniupnpd.conf", config), "-P", r.Dir()+"/miniupnpd.pid"))
	listening := "Listening for NAT-PMP/PCP traffic"
	if by == upnp {
		listening = "HTTP listening on port"
	}
	p.WaitLog(listening)
}

// mapped are the rules by which a router sends what arrives to a host behind it.
func mapped(r *topo.Router) (rules []string) {
	for line := range strings.Lines(r.Run("nft", "list", "chain", "inet", "miniupnpd", "prerouting_miniupnpd")) {
		if strings.Contains(line, "dnat") {
			rules = append(rules, strings.TrimSpace(line))
		}
	}
	return rules
}

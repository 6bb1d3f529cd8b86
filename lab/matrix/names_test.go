package matrix

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/coturn"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/topo"
)

// coturns are the words of coturn's client.
var coturns = map[topo.Behaviour]string{
	topo.EndpointIndependent:     "Endpoint Independent",
	topo.AddressDependent:        "Address Dependent",
	topo.AddressAndPortDependent: "Address and Port Dependent",
}

// netports are the portals' own words for what coturn's client says of the mapping of IPv4. Two relays of one port each tell
// no port of one from another.
var netports = map[string]string{
	"Endpoint Independent":       "endpoint-independent mapping",
	"Address Dependent":          "address-dependent mapping, or address and port-dependent",
	"Address and Port Dependent": "address-dependent mapping, or address and port-dependent",
}

// TestNATsAreNamedAlike has coturn's client find out what stands before portals of each kind: it is what the lab calls it,
// and what the portal there names it in status and doctor.
func TestNATsAreNamedAlike(t *testing.T) {
	need.Program(t, "turnserver", "turnutils_natdiscovery")
	w := newWorld(t)
	w.near = true
	w.options = []daemon.Option{daemon.Set("port_mapping", false)} // doctor would wait for routers that map none
	w.Relay(w.lab.Public("relay-2"))                               // a mapping shows between two
	stun := w.lab.Public("stun")
	second := stun.SecondUplink()
	coturn.Start(t, stun, stun.Addr4(), second.Addr4, stun.Addr6(), second.Addr6)
	kinds := append(v4Kinds[:len(v4Kinds):len(v4Kinds)],
		kind{name: "by address", v4: true, nats: []topo.NAT{{Mapping: topo.AddressDependent, Filtering: topo.AddressDependent}}},
		v6Kinds[0], v6Kinds[1])
	for i, k := range kinds {
		w.a = append(w.a, w.site(fmt.Sprintf("a-%d", i), k))
	}
	w.b = append(w.b, w.site("b-0", kind{name: "both", v4: true, v6: true}))
	w.allow(t)
	lines := make([]string, len(kinds))
	t.Run("kinds", func(t *testing.T) {
		for i, a := range w.a {
			t.Run(a.kind.name, func(t *testing.T) {
				t.Parallel()
				from, to, version := a.Host().Addr4(), stun.Addr4(), "IPv4"
				if !a.kind.v4 {
					from, to, version = a.Host().Addr6(), stun.Addr6(), "IPv6"
				}
				said, want := coturn.Discover(t, a.Host(), from, to), a.kind.sides()[version]
				if said.None != (len(a.kind.nats) == 0) || said.Mapping != coturns[want.mapping] || said.Filtering != coturns[want.filtering] {
					t.Errorf("coturn's client says %+v, the lab %+v", said, want)
				}
				status, doctor := a.named(t, w.b[0])
				lines[i] = fmt.Sprintf("%s\t%s\t%t\t%s\t%s\t%s\t%s", a.kind.name, version, said.None, said.Mapping, said.Filtering, status, doctor)
				own := netports[said.Mapping]
				switch {
				case version == "IPv6":
					own = "unknown" // of IPv4
				case said.None:
					own = "no NAT"
				}
				if status != own || !strings.HasPrefix(doctor, own) {
					t.Errorf("the portal says %q in status and %q in doctor, coturn's client %+v", status, doctor, said)
				}
			})
		}
	})
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "what coturn's client says, and the portal\nkind\t\tno NAT\tmapping\tfiltering\tstatus\tdoctor\n%s\n", strings.Join(lines, "\n"))
	table.Flush()
	t.Log(text.String())
}

// named returns how a portal that has met another names its NAT, once it was seen by two.
func (s *site) named(t *testing.T, peer *site) (status, doctor string) {
	t.Helper()
	s.Ping(peer.Name())
	known := func(text string) error {
		if s.kind.v4 && (strings.HasPrefix(text, "unknown") || strings.Contains(text, "its mapping unknown")) {
			return fmt.Errorf("it says %q", text)
		}
		return nil
	}
	await.Until(t, "the NAT named by status", func() error {
		for _, tunnel := range s.Status().Tunnels {
			status = tunnel.Direct.NAT
		}
		return known(status)
	})
	await.Until(t, "the NAT named by doctor", func() error {
		out, err := s.Command("doctor", "--json").Output()
		var report struct{ Lines []struct{ What, Text string } }
		if json.Unmarshal(out, &report) != nil {
			return fmt.Errorf("doctor: %w: %s", err, out)
		}
		for _, line := range report.Lines {
			if line.What == "NAT" {
				doctor = line.Text
			}
		}
		return known(doctor)
	})
	return status, doctor
}

package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/daemon"
	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/proto/command"
)

// What status says of direct paths: the one in use, or why there is none; with --wide all
// that was tried.
func TestStatusTellsTheTruthAboutDirectPaths(t *testing.T) {
	search := peers.Search{
		NAT: "address-dependent mapping, or address and port-dependent",
		Own: []peers.Candidate{{Transport: "udp", Address: "192.168.1.2:4000", Origin: "own address"}},
		Peers: []peers.Candidate{
			{Transport: "udp", Address: "203.0.113.9:4100", Origin: "seen from outside", State: "in use", RTT: 0.92},
			{Transport: "udp", Address: "10.0.0.5\x1b:4000", Origin: "own address", State: "no answer", Asked: 30},
		},
	}
	relayed := peers.Way{Path: "relay", Relay: "relay-1"}
	for _, tt := range []struct {
		name          string
		status        peers.Status
		wide, want    []string
		row, silences string
	}{
		{
			name:   "a direct path in use, and a relay in reserve",
			status: peers.Status{Path: "direct-udp", Ways: []peers.Way{relayed, {Path: "direct-udp", Direct: true}}, Direct: &search},
			wide: []string{
				"factory: was told udp 192.168.1.2:4000 (own address)", "factory: may be at udp 203.0.113.9:4100 (seen from outside): in use, 0.92 ms",
				"factory: may be at udp 10.0.0.5?:4000 (own address): no answer",
			},
			row: "direct-udp+relay  relay-1", silences: "no direct path",
		},
		{
			name:   "none that answers",
			status: peers.Status{Path: "relay", Relay: "relay-1", Ways: []peers.Way{relayed}, Direct: &search},
			want:   []string{"factory: no direct path: none of the addresses of factory has led to one (2); NAT here: address-dependent mapping, or address and port-dependent"},
			row:    "relay  relay-1",
		},
		{
			name:   "none that the other portal has told",
			status: peers.Status{Path: "relay", Relay: "relay-1", Ways: []peers.Way{relayed}, Direct: &peers.Search{NAT: "no NAT"}},
			want:   []string{"factory: no direct path: factory has told no address; NAT here: no NAT"},
		},
		{
			name:   "none looked for",
			status: peers.Status{Path: "relay", Relay: "relay-1", Ways: []peers.Way{relayed}}, silences: "direct",
		},
	} {
		tt.status.Peer, tt.status.Up = "factory", true
		for _, wide := range []bool{false, true} {
			var b bytes.Buffer
			if err := printStatus(&command.Page{Writer: &b, Wide: wide}, daemon.Status{Portal: "laptop", Tunnels: []peers.Status{tt.status}}, time.Now()); err != nil {
				t.Fatal(err)
			}
			got := strings.Join(strings.Fields(b.String()), " ")
			want := slices.Clone(tt.want)
			if wide {
				want = append(want, tt.wide...)
			}
			if row := strings.Join(strings.Fields(tt.row), " "); !strings.Contains(got, row) {
				t.Errorf("%s: no row %q in\n%s", tt.name, row, &b)
			}
			for _, line := range want {
				if !strings.Contains(got, line) {
					t.Errorf("%s, wide %v: no line %q in\n%s", tt.name, wide, line, &b)
				}
			}
			if tt.silences != "" && strings.Contains(got, tt.silences) {
				t.Errorf("%s, wide %v: %q in\n%s", tt.name, wide, tt.silences, &b)
			}
		}
	}
}

// ping tells of each path beside the one in use, of its quickest carrier.
func TestPingTellsOfEveryPath(t *testing.T) {
	for want, r := range map[string]daemon.PingResult{
		"": {Path: "relay relay-1 at 192.0.2.1:443", Ways: []peers.Way{{Path: "relay", Relay: "relay-1", RTT: 20}}},
		"; relay relay-1: 20 ms; relay-udp relay-1: no answer": {Path: "direct-udp at 203.0.113.9:4100", Ways: []peers.Way{
			{Path: "relay", Relay: "relay-1"}, {Path: "relay", Relay: "relay-1", RTT: 25}, {Path: "relay", Relay: "relay-1", RTT: 20},
			{Path: "direct-udp", RTT: 1, Direct: true}, {Path: "relay-udp", Relay: "relay-1"},
		}},
	} {
		if got := beside(r); got != want {
			t.Errorf("beside %s: %q, want %q", r.Path, got, want)
		}
	}
}

package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/control"
	"github.com/netport/netport/portal/internal/daemon"
	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/keeper"
)

func TestStatusReadsAsAPersonWants(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s := daemon.Status{
		Portal: "laptop-ann", Domain: "example.org", Started: now.Add(-90 * time.Minute), Certificate: now.AddDate(1, 0, 0),
		Server: control.Status{Connected: true, Name: "server", Address: "192.0.2.1:443", Transport: "udp", Since: now.Add(-59 * time.Second), Policy: 7, Contest: "another\x07 machine", Contested: now.Add(-2 * time.Minute)},
		Forwards: []daemon.Forward{
			{Name: "web", State: daemon.Up, Role: "entry", Listen: "tcp://127.0.0.1:8080", Peer: "factory-1", Target: "tcp://10.0.0.5:80", Why: "listening; tunnel"},
			{Name: "dns", State: daemon.Down, Role: "exit", Listen: "udp://127.0.0.1:53", Peer: "x", Target: "udp://10.0.0.5:53", Why: "bad\x1b[2J"},
		},
		Tunnels: []peers.Status{{
			Peer: "factory-1", Session: "0a1b2c3d", Up: true, Since: now.Add(-72 * time.Hour), Path: "relay", Relay: "relay-1", Address: "192.0.2.2:20000",
			RTT: 1.234, Carriers: 3, Ways: []peers.Way{
				{Path: "relay-udp", Kind: "QUIC", Relay: "relay-1", RTT: 1.5, Flows: true, Why: "TCP carries more"},
				{Path: "relay", Kind: "TLS", Relay: "relay-1", Streams: 2}, {Path: "relay", Kind: "TLS", Relay: "relay-1", Streams: 1},
			}, Streams: 3, Flows: 4, Sent: 999, Received: 1_500_000,
		}, {
			Peer: "x", Session: "0a1b2c3e", Since: now.Add(-time.Hour), Waiting: now.Add(-3 * time.Second), Relay: "relay-1", Streams: 1,
		}, {Peer: "y", Session: "0a1b2c3f", Relay: "relay-2"}},
		Unreachable: 2, Identity: keeper.Status{Key: identity.KeyHash{0x51}},
		Router: &daemon.Router{Gateway: "192.168.0.1", Protocol: "PCP", Mappings: []daemon.Mapping{{Transport: "udp", External: "192.0.2.7:4000"}, {Transport: "tcp", External: "192.0.2.7:4001"}}},
	}
	var b bytes.Buffer
	if err := printStatus(&command.Page{Writer: &b}, s, now); err != nil {
		t.Fatal(err)
	}
	const head = `portal   laptop-ann of example.org, running for 1h30m, certificate until
         2027-11-22
key      5100000000000000000000000000000000000000000000000000000000000000
server   server at 192.0.2.1:443 over UDP, connected for 59s, policy version 7
warning  0h02m ago the server said: another? machine
UDP      2 datagrams found no one listening at their target, 0 were too large
         for the way there
router   192.168.0.1 maps 192.0.2.7:4000 udp, 192.0.2.7:4001 tcp (PCP)

`
	const narrow = `FORWARD  STATE  ROLE   LISTEN                PEER       TARGET
web      up     entry  tcp://127.0.0.1:8080  factory-1  tcp://10.0.0.5:80
dns      down   exit   udp://127.0.0.1:53    x          udp://10.0.0.5:53
dns: bad?[2J

TUNNEL     STATE       PATH             RELAY    RTT      STREAMS
factory-1  up 3 days   relay+relay-udp  relay-1  1.23 ms  3
x          waiting 3s  -                relay-1  -        1
y          opening     -                relay-2  -        0
`
	const wide = `FORWARD  STATE  ROLE   LISTEN                PEER       TARGET             WHY
web      up     entry  tcp://127.0.0.1:8080  factory-1  tcp://10.0.0.5:80  listening; tunnel
dns      down   exit   udp://127.0.0.1:53    x          udp://10.0.0.5:53  bad?[2J

TUNNEL     STATE       PATH             RELAY    ADDRESS          RTT      STREAMS  SENT   RECEIVED  FLOWS  CARRIERS  SESSION
factory-1  up 3 days   relay+relay-udp  relay-1  192.0.2.2:20000  1.23 ms  3        999 B  1.5 MB    4      3         0a1b2c3d
x          waiting 3s  -                relay-1  -                -        1        0 B    0 B       0      0         0a1b2c3e
y          opening     -                relay-2  -                -        0        0 B    0 B       0      0         0a1b2c3f
factory-1: relay-udp relay-1, QUIC, 1.50 ms: streams 0, and datagrams; streams take another: TCP carries more
factory-1: relay relay-1, TLS: streams 2
factory-1: relay relay-1, TLS: streams 1
`
	if got := b.String(); got != head+narrow {
		t.Errorf("got\n%s\nwant\n%s", got, head+narrow)
	}
	for line := range strings.Lines(narrow) {
		if len(line) > 80 {
			t.Errorf("wider than 80: %s", line)
		}
	}
	b.Reset()
	if err := printStatus(&command.Page{Writer: &b, Wide: true}, s, now); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), strings.ReplaceAll(head, "\n         ", " ")+wide; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestExplanationsCannotCommandTheTerminal(t *testing.T) {
	var b bytes.Buffer
	err := printExplanations(&command.Page{Writer: &b}, []daemon.Explanation{{
		Forward: "web", Entry: "ann", Listen: "stdio:", Exit: "factory", Target: "tcp://10.0.0.5:80",
		Steps:      []daemon.Step{{What: "target", State: daemon.StepFailed, Text: "factory said: \x1b]0;x\n"}},
		Conclusion: "It fails at factory.",
	}})
	want := "web: ann stdio: -> factory tcp://10.0.0.5:80\n  failed  target        factory said: ?]0;x?\nIt fails at factory.\n"
	if err != nil || b.String() != want {
		t.Errorf("got %q, %v, want %q", b.String(), err, want)
	}
}

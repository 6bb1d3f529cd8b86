package main

import (
	"fmt"
	"time"

	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/proto/leg"
)

// experiments are all that there are, by the ids of the goals.
var experiments = []experiment{
	{id: "P1", set: frameExperiment(1000, "1,000 UDP sessions", 0.85)},
	{id: "P1", set: frameExperiment(1_000_000, "1,000,000 UDP sessions", 0.6)},
	{id: "P2", set: passageExperiment(1)},
	{id: "P2", set: passageExperiment(leg.PacketPorts)},
	{id: "P3", set: costExperiment(false, 1.0/6)},
	{id: "P3", set: costExperiment(true, 1.0/20)},
	{id: "P4", set: packetExperiment(1)},
	{id: "P4", set: packetExperiment(maxFlows)},
	{id: "P5", set: goodputExperiment(1)},
	{id: "P5", set: goodputExperiment(8)},
	{id: "P6", at: overQUIC, set: quicExperiment(1)},
	{id: "P6", at: overQUIC, set: quicExperiment(8)},
	{id: "P7", set: pingPongExperiment},
	{id: "P8", set: connectExperiment},
	{id: "P9", at: coldSetting("cold TLS", topo.BlockUDP), set: coldExperiment("TLS", target{atMost: 3.6}, target{atMost: 0.6})},
	{id: "P9", at: coldSetting("cold QUIC", noRelayTCP...), set: coldExperiment("QUIC", target{atMost: 2.8}, target{atMost: 0.6})},
	{id: "P9", at: coldSetting("cold"), set: coldExperiment("race", target{}, target{})},
	{id: "P10", at: fatSetting("fat", 0), set: fatExperiment("100 ms", 0.9)},
	{id: "P10", at: fatSetting("fat and lossy", 0.01), set: fatExperiment("and 1 % loss", 0.6)},
	{id: "S1", set: sizeExperiment},
	{id: "S2", at: setting{name: "memory"}, set: residentExperiment},
	{id: "S3", at: setting{name: "crowd"}, set: crowdExperiment},
	{id: "S4", at: setting{name: "idle"}, set: idleExperiment},
	{id: "S5", set: memoryExperiment(1_000_000)},
	{id: "D1", at: directly, set: directExperiment(1)},
	{id: "D1", at: directly, set: directExperiment(8)},
	{id: "D2", at: coldDirectly, set: becomeDirectExperiment},
	{id: "D3", at: setting{name: "idle, directly", portals: directly.portals}, set: idleDirectExperiment},
	{id: "G3", at: setting{name: "server away"}, set: awayExperiment(time.Minute)},
	{id: "G4", at: setting{name: "relays killed"}, set: killExperiment(20)},
}

// noRelayTCP lets no TCP through to the ports of relays, those of sessions and the shared one.
var noRelayTCP = []topo.Rule{topo.BlockTCPPorts(20000, 32767), topo.BlockTCPPorts(3478, 3478)}

// overQUIC is the reference topology without TCP to relays, so that QUIC is left.
var overQUIC = setting{name: "over QUIC", rules: noRelayTCP}

// fatSetting has a line of 200 Mbit/s and 100 ms there and back before NAT a.
func fatSetting(name string, loss float64) setting {
	line := link.Shape{Rate: 200e6, Delay: 50 * time.Millisecond, Loss: loss}
	return setting{name: name, lineA: line, warm: 5 * time.Second, window: 5 * time.Second}
}

// fatExperiment wants a share of what the line carries.
func fatExperiment(what string, share float64) func(*world) (comparison, error) {
	return func(w *world) (comparison, error) {
		all, err := overWays(func(via way) ([]float64, error) { return w.goodput(via.addr(sinkPort), 1) },
			w.netport, w.ssh, w.direct)
		if err != nil {
			return comparison{}, err
		}
		return comparison{mode: w.netportMode, contenders: all, quantities: []quantity{{
			what: "200 Mbit/s, " + what, unit: bitrate, own: target{atLeast: share * float64(w.setting.lineA.Rate)},
		}}}, nil
	}
}

// quicExperiment is goodput where Netport has nothing but QUIC.
func quicExperiment(streams int) func(*world) (comparison, error) {
	return func(w *world) (comparison, error) {
		ways := []func() (way, error){w.netport, w.ssh}
		if _, err := w.wireGuardProgram(); err == nil {
			ways = append(ways, w.wireGuard)
		} else {
			w.t.Logf("without wireguard-go: %v", err)
		}
		all, err := overWays(func(via way) ([]float64, error) { return w.goodput(via.addr(sinkPort), streams) }, ways...)
		if err != nil {
			return comparison{}, err
		}
		pumped := contender{name: quicPumpName, measure: func() ([]float64, error) {
			return w.pumped(overUDP, sinkPort, streams, func(addr string) ([]float64, error) { return w.goodput(addr, streams) })
		}}
		bare := contender{name: bareQUICPumpName, measure: func() ([]float64, error) { return w.barePumped(overUDP, streams) }}
		return comparison{mode: w.netportMode, contenders: append(all, pumped, bare), quantities: []quantity{{
			what: "over QUIC, " + plural(streams, "stream"), unit: bitrate,
			targets: map[string]target{quicPumpName: {atLeast: 0.85}},
		}}}, nil
	}
}

func packetExperiment(count int) func(*world) (comparison, error) {
	return func(w *world) (comparison, error) {
		relay, err := w.userRelay()
		if err != nil {
			return comparison{}, err
		}
		var all []contender
		for _, start := range []func() (flows, error){w.legs, w.turn} {
			f, err := start()
			if err != nil {
				return comparison{}, err
			}
			all = append(all, contender{name: f.name, measure: func() ([]float64, error) { return w.packets(f, count) }})
		}
		return comparison{mode: relay.mode, contenders: all, quantities: []quantity{{
			what: "UDP packets, " + plural(count, "flow"), unit: rate,
			targets: map[string]target{turnName: {atLeast: 2}},
		}}}, nil
	}
}

func goodputExperiment(streams int) func(*world) (comparison, error) {
	return func(w *world) (comparison, error) {
		all, err := overWays(func(via way) ([]float64, error) { return w.goodput(via.addr(sinkPort), streams) },
			w.netport, w.ssh, w.sshOpen, w.direct)
		if err != nil {
			return comparison{}, err
		}
		pumped := contender{name: pumpName, measure: func() ([]float64, error) {
			return w.pumped(overTCP, sinkPort, streams, func(addr string) ([]float64, error) { return w.goodput(addr, streams) })
		}}
		bare := contender{name: barePumpName, measure: func() ([]float64, error) { return w.barePumped(overTCP, streams) }}
		return comparison{mode: w.netportMode, contenders: append(all, pumped, bare), quantities: []quantity{{
			what: "TCP goodput, " + plural(streams, "stream"), unit: bitrate,
			targets: map[string]target{pumpName: {atLeast: 0.85}, sshName: {atLeast: 4}},
		}}}, nil
	}
}

func pingPongExperiment(w *world) (comparison, error) {
	all, err := overWays(func(via way) ([]float64, error) { return w.ask(doPingPong, via.addr(echoPort)) },
		w.netport, w.ssh, w.sshOpen, w.direct)
	pumped := contender{name: pumpName, measure: func() ([]float64, error) {
		return w.pumped(overTCP, echoPort, 1, func(addr string) ([]float64, error) { return w.ask(doPingPong, addr) })
	}}
	if err != nil {
		return comparison{}, err
	}
	targets := map[string]target{sshName: {atMost: 0.3}}
	return comparison{mode: w.netportMode, contenders: append(all, pumped), quantities: []quantity{
		{what: "1-byte ping-pong, p50", unit: seconds, targets: targets},
		{what: "1-byte ping-pong, p99", unit: seconds, targets: targets},
	}}, nil
}

func connectExperiment(w *world) (comparison, error) {
	all, err := overWays(func(via way) ([]float64, error) { return w.ask(doConnect, via.addr(replyPort)) },
		w.netport, w.ssh, w.sshOpen, w.direct)
	if err != nil {
		return comparison{}, err
	}
	return comparison{mode: w.netportMode, contenders: all, quantities: []quantity{{
		what: "new connections", unit: rate,
		targets: map[string]target{sshName: {atLeast: 4}, directName: {atLeast: 0.3}},
	}}}, nil
}

// overWays starts ways and makes contenders of them that are all measured alike.
func overWays(measure func(way) ([]float64, error), ways ...func() (way, error)) ([]contender, error) {
	var all []contender
	for _, start := range ways {
		via, err := start()
		if err != nil {
			return nil, err
		}
		all = append(all, contender{name: via.name, measure: func() ([]float64, error) { return measure(via) }})
	}
	return all, nil
}

// notes say what the rivals are, below the table.
var notes = []struct{ name, text string }{
	{reflectorName, "an XDP program of one instruction, with the same generator, veth pair and sink"},
	{lookupName, "the same, if a hash map of the relay's size has the frame's flow; for information"},
	{turnName, "channel data to coturn, plain datagrams from there; no portals on either side"},
	{sshName, "OpenSSH with the relay's machine as jump host. Both sides can only dial out, so"},
	{"", "the service's machine lends its sshd to the jump host with ssh -R"},
	{sshOpenName, "the same with a port of NAT b forwarded to that sshd; for information"},
	{nftName, "a machine beside the relay's forwards in the kernel, to a port of NAT b"},
	{directName, "ports of NAT b forwarded to the service: nobody's help, nothing encrypted"},
	{pumpName, "crypto/tls between applications' sockets, by such a relay; one connection a stream"},
	{barePumpName, "the same without the applications' sockets; for information"},
	{quicPumpName, "quic-go between applications' sockets, by such a relay; one connection"},
	{bareQUICPumpName, "the same without the applications' sockets; for information"},
	{wireGuardName, "a UDP session of such a relay between the two; if the program is there"},
	{"S2", "at the side where connections begin; what other processes share is counted"},
	{floorName, "a goroutine for each connection that reads, same certificates; for information"},
	{"S3", "from 1,000 to 5,000 connected, without grants; kernel sockets not counted"},
	{directTLSName, "crypto/tls between applications' sockets, by no relay but a port of NAT b"},
	{directQUICName, "quic-go, the same way"},
	{"D2", "from the first byte, by the relay, until the entry has a direct carrier"},
	{"D3", "counted as S4, with a connection over which nothing goes"},
	{"S4", "counted for 10 minutes (1 with -quick), keepalives of 4 minutes among them"},
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

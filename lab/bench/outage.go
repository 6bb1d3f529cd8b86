package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	through "github.com/netport/netport/lab/traffic"
)

// The port of the services on the service's machine that streams and flows of an outage use, beside servicePorts.
const outagePort = 7010

// outages is Netport with two relays in user space, whose death takes what they forward with them.
type outages struct {
	w       *world
	relays  []*daemon.Relay
	service net.Listener
}

func (w *world) startOutages() (*outages, error) {
	o := &outages{w: w, service: w.service.Listen(outagePort)}
	w.service.EchoUDP(outagePort)
	w.client.EchoUDP(outagePort)
	for i, host := range []string{"relay-1", "relay-2"} {
		o.relays = append(o.relays, w.network.Relay(w.lab.Public(host), daemon.Set("mode", "userspace")))
		if i == 0 {
			w.netportRelay = o.relays[0]
		}
	}
	if _, err := w.startPortals(); err != nil {
		return nil, err
	}
	policy := ""
	for _, scheme := range []string{"tcp", "udp"} {
		policy += fmt.Sprintf("[[forward]]\nname = %q\nfrom = \"client %s://127.0.0.1:%d\"\nto = \"service %s://127.0.0.1:%d\"\n",
			scheme, scheme, outagePort+netportShift, scheme, outagePort)
	}
	w.network.Apply(policy)
	for _, scheme := range []string{"tcp", "udp"} {
		w.entry.WaitUp(scheme)
	}
	return o, nil
}

// start starts a checked stream each way and numbered datagrams there and back, and waits until they flow.
func (o *outages) start() (*through.Traffic, error) {
	ctx, cancel := context.WithTimeout(o.w.t.Context(), patience)
	defer cancel()
	dial := func(network string, port uint16) (net.Conn, error) {
		return o.w.client.DialContext(ctx, network, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port))
	}
	stream, err := dial("tcp", outagePort+netportShift)
	if err != nil {
		return nil, err
	}
	flow, err := dial("udp", outagePort+netportShift)
	if err != nil {
		return nil, err
	}
	beside, err := dial("udp", outagePort)
	if err != nil {
		return nil, err
	}
	tr := through.Start(o.w.t, through.Load{
		Pairs: []through.Pair{{Client: stream, Service: await.Accept(o.w.t, o.service)}},
		Flow:  flow.(*net.UDPConn), Beside: beside.(*net.UDPConn),
	})
	tr.Flows(await.Patience)
	return tr, nil
}

// kill kills the relay in use under traffic, and returns how long the stream stood still.
func (o *outages) kill() (time.Duration, error) {
	tr, err := o.start()
	if err != nil {
		return 0, err
	}
	relay, err := o.inUse()
	if err != nil {
		return 0, err
	}
	relay.Kill()
	tr.Flows(await.Patience)
	got := tr.End()
	relay.Start()
	return got.Stall, got.Err
}

func (o *outages) inUse() (*daemon.Relay, error) {
	status := o.w.entry.Status()
	for _, tunnel := range status.Tunnels {
		for _, r := range o.relays {
			if tunnel.Up && tunnel.Relay == r.Name() {
				return r, nil
			}
		}
	}
	return nil, fmt.Errorf("there is no tunnel: %+v", status.Tunnels)
}

// killExperiment kills a relay again and again, while another is there, and measures for how long a stream stands still.
func killExperiment(kills int) func(*world) (comparison, error) {
	return func(w *world) (comparison, error) {
		o, err := w.startOutages()
		if err != nil {
			return comparison{}, err
		}
		measure := func() ([]float64, error) {
			var stalls []float64
			for range kills {
				stall, err := o.kill()
				if err != nil {
					return nil, err
				}
				stalls = append(stalls, stall.Seconds())
			}
			slices.Sort(stalls)
			return []float64{percentile(stalls, 0.5), percentile(stalls, 0.95), percentile(stalls, 1)}, nil
		}
		return comparison{rounds: 1, contenders: []contender{{netportName, measure}}, quantities: []quantity{
			{what: "relay killed, p50", unit: seconds},
			{what: "relay killed, p95", unit: seconds, own: target{atMost: 3}},
			{what: "relay killed, most", unit: seconds, own: target{atMost: 5}},
		}}, nil
	}
}

// awayExperiment takes the server away and measures the longest interruption of traffic.
func awayExperiment(away time.Duration) func(*world) (comparison, error) {
	return func(w *world) (comparison, error) {
		o, err := w.startOutages()
		if err != nil {
			return comparison{}, err
		}
		measure := func() ([]float64, error) {
			tr, err := o.start()
			if err != nil {
				return nil, err
			}
			w.network.Server.Kill()
			await.Passing(w.t, away)
			w.network.Server.Start()
			o.w.entry.WaitConnected()
			got := tr.End()
			return []float64{got.Stall.Seconds(), got.Gap.Seconds(), got.Machine.Seconds()}, got.Err
		}
		const most = 0.2
		return comparison{rounds: 1, contenders: []contender{{netportName, measure}}, quantities: []quantity{
			{what: "server away, stream", unit: seconds, own: target{atMost: most}},
			{what: "server away, datagram", unit: seconds, own: target{atMost: most}},
			{what: "  past Netport", unit: seconds},
		}}, nil
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

// passed measures TCP through the relay as it is, without portals: the client's application and the service both connect
// to the packet ports of a session, and the kernel joins what they send.
func (w *world) passed(streams int) ([]float64, error) {
	if streams > leg.PacketPorts {
		return nil, fmt.Errorf("a session has packet ports for %d connections, not %d", leg.PacketPorts, streams)
	}
	relay, err := w.kernelRelay()
	if err != nil {
		return nil, err
	}
	s := relay.open(wire.TransportPacket)
	defer relay.close(s)
	if s.Ready.Packet[0] == 0 {
		return nil, errors.New("the relay has no packet mode")
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	var near []string
	var receiving sync.WaitGroup
	failed := make([]error, streams)
	for i := range streams {
		near = append(near, packetPort(relay.Host().Addr(), s.Ready.Packet[0], i).String())
		far := packetPort(relay.Host().Addr(), s.Ready.Packet[1], i)
		receiving.Go(func() { failed[i] = w.receiveFrom(ctx, far) })
	}
	figures, err := w.goodput(strings.Join(near, ","), streams)
	receiving.Wait()
	return figures, errors.Join(append(failed, err)...)
}

// receiveFrom connects from the service's machine and counts what comes, as the sink does.
func (w *world) receiveFrom(ctx context.Context, addr netip.AddrPort) error {
	conn, err := w.service.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	w.services.sink(conn)
	return nil
}

const nftName = "nft SNAT + DNAT"

// startNFT makes a machine beside the relay's forward connections to NAT b's open port in the kernel, with addresses and
// ports translated by nftables both ways.
func (w *world) startNFT() (way, error) {
	host := w.lab.Public("forwarder")
	host.Sysctl("ipv4/ip_forward", "1")
	for _, device := range []string{"all", host.Device()} {
		host.Sysctl("ipv4/conf/"+device+"/send_redirects", "0") // the way back is the way in
	}
	rules := host.Command("nft", "-f", "-")
	rules.Stdin = strings.NewReader(fmt.Sprintf(`table ip forwarder {
		chain prerouting {
			type nat hook prerouting priority dstnat
			tcp dport %d dnat to %v
		}
		chain postrouting {
			type nat hook postrouting priority srcnat
			masquerade
		}
	}`, sinkPort, netip.AddrPortFrom(w.natB.Addr(), sinkPort)))
	if out, err := rules.CombinedOutput(); err != nil {
		return way{}, fmt.Errorf("load nft rules: %w: %s", err, out)
	}
	return way{name: nftName, addr: func(port uint16) string { return netip.AddrPortFrom(host.Addr(), port).String() }}, nil
}

// passageExperiment compares the relay in the kernel, without portals, to what else the kernel can forward with.
func passageExperiment(streams int) func(*world) (comparison, error) {
	return func(w *world) (comparison, error) {
		relay, err := w.kernelRelay()
		if err != nil {
			return comparison{}, err
		}
		rivals, err := overWays(func(via way) ([]float64, error) { return w.goodput(via.addr(sinkPort), streams) }, w.nft, w.direct)
		if err != nil {
			return comparison{}, err
		}
		own := contender{name: netportName, measure: func() ([]float64, error) { return w.passed(streams) }}
		return comparison{
			mode: relay.mode, contenders: append([]contender{own}, rivals...),
			quantities: []quantity{{
				what: "plain TCP, " + plural(streams, "stream"), unit: bitrate,
				targets: map[string]target{nftName: {atLeast: 1}, directName: {atLeast: 0.9}},
			}},
		}, nil
	}
}

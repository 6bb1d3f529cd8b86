package main

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/proto/wire"
)

// directly has the portals look for direct paths.
var directly = setting{name: "directly", portals: []daemon.Option{daemon.Set("direct", true)}}

// coldDirectly is that with delays as for cold starts.
var coldDirectly = setting{
	name: "cold, directly", lineA: coldSetting("").lineA, lineB: coldSetting("").lineB, portals: directly.portals,
}

// meetDirectly opens a connection that stays open, and waits until it takes a direct path.
func (w *world) meetDirectly(via way) (net.Conn, error) {
	conn := w.client.Dial("tcp", netip.MustParseAddrPort(via.addr(echoPort)))
	if _, err := conn.Write([]byte{1}); err != nil {
		return nil, err
	}
	return conn, until("a direct path is taken", w.entry.Process().Done(), func() error {
		if mode := w.pathMode(); !strings.HasPrefix(mode, "direct") {
			return fmt.Errorf("it takes %q", mode)
		}
		return nil
	})
}

// pathMode is the path that the entry's tunnel takes.
func (w *world) pathMode() string {
	for _, tunnel := range w.entry.Status().Tunnels {
		if tunnel.Up {
			return tunnel.Path
		}
	}
	return "no path"
}

// directExperiment measures a direct path beside TLS and QUIC between the same two machines.
func directExperiment(streams int) func(*world) (comparison, error) {
	return func(w *world) (comparison, error) {
		via, err := w.netport()
		if err != nil {
			return comparison{}, err
		}
		if _, err := w.meetDirectly(via); err != nil {
			return comparison{}, err
		}
		own := contender{name: netportName, measure: func() ([]float64, error) {
			rate, err := w.goodput(via.addr(sinkPort), streams)
			if mode := w.pathMode(); err == nil && !strings.HasPrefix(mode, "direct") {
				err = fmt.Errorf("it took %s", mode)
			}
			return rate, err
		}}
		rival := func(name string, over wire.Transports) contender {
			return contender{name: name, measure: func() ([]float64, error) { return w.pumpedDirectly(over, streams) }}
		}
		all := []contender{own, rival(directTLSName, overTCP), rival(directQUICName, overUDP)}
		return comparison{mode: w.pathMode, contenders: all, quantities: []quantity{{
			what: "direct path, " + plural(streams, "stream"), unit: bitrate,
			targets: map[string]target{directTLSName: {atLeast: 0.95}, directQUICName: {atLeast: 0.95}},
		}}}, nil
	}
}

// becomeDirectExperiment measures how long after the first byte has come, by a relay, a direct path carries, in round trips:
// behind a start of the entry portal. It reads that from the entry's log.
func becomeDirectExperiment(w *world) (comparison, error) {
	via, err := w.netport()
	if err != nil {
		return comparison{}, err
	}
	measure := func() ([]float64, error) {
		w.entry.Restart()
		w.waitUp()
		start := time.Now()
		took, err := w.firstByte(via)
		if err != nil {
			return nil, err
		}
		stamp, _, _ := strings.Cut(strings.TrimPrefix(w.entry.WaitLog("path=direct"), "time="), " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		return []float64{at.Sub(start).Seconds()/roundTrip.Seconds() - took}, err
	}
	return comparison{mode: w.netportMode, contenders: []contender{{netportName, measure}}, quantities: []quantity{
		{what: "first byte to direct path", unit: trips},
	}}, nil
}

// idleDirectExperiment is idleExperiment with a connection that takes a direct path, and over which nothing goes.
func idleDirectExperiment(w *world) (comparison, error) {
	via, err := w.netport()
	if err != nil {
		return comparison{}, err
	}
	conn, err := w.meetDirectly(via)
	if err != nil {
		return comparison{}, err
	}
	end := conn.Close
	return comparison{rounds: 1, end: end, contenders: []contender{{netportName, w.idle}}, quantities: []quantity{
		{what: "idle, a direct path, a day", unit: size, own: target{atMost: 100e3}},
	}}, nil
}

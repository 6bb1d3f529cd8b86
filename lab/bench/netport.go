package main

import (
	"fmt"
	"strings"

	"github.com/netport/netport/lab/daemon"
)

const (
	netportName  = "Netport"
	netportShift = 20000 // from the services' ports to the entry portal's listeners
)

// startNetport starts a server, a relay and two portals, with a forward for each service, and waits until all are up.
func (w *world) startNetport() (way, error) {
	w.netportRelay = w.network.Relay(w.relay, daemon.InKernel("auto"))
	return w.startPortals()
}

// startPortals starts the portals with their forwards; the relay runs.
func (w *world) startPortals() (way, error) {
	w.entry, w.exit = w.network.Portal(w.client, w.setting.portals...), w.network.Portal(w.service, w.setting.portals...)
	via := at(netportName, netportShift)
	var policy strings.Builder
	for _, port := range servicePorts {
		fmt.Fprintf(&policy, "[[forward]]\nname = \"port-%d\"\nfrom = \"%s tcp://%s\"\nto = \"%s tcp://127.0.0.1:%d\"\n",
			port, w.entry.Name(), via.addr(port), w.exit.Name(), port)
	}
	w.network.Apply(policy.String())
	w.waitUp()
	return via, nil
}

// waitUp waits until all forwards are up.
func (w *world) waitUp() {
	for _, port := range servicePorts {
		w.entry.WaitUp(fmt.Sprintf("port-%d", port))
	}
}

func (w *world) netportMode() string { return modeOf(w.netportRelay) }

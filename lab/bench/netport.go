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
	entry, exit := w.network.Portal(w.client), w.network.Portal(w.service)
	via := at(netportName, netportShift)
	var policy strings.Builder
	for _, port := range servicePorts {
		fmt.Fprintf(&policy, "[[forward]]\nname = \"port-%d\"\nfrom = \"%s tcp://%s\"\nto = \"%s tcp://127.0.0.1:%d\"\n",
			port, entry.Name(), via.addr(port), exit.Name(), port)
	}
	w.network.Apply(policy.String())
	for _, port := range servicePorts {
		entry.WaitUp(fmt.Sprintf("port-%d", port))
	}
	return via, nil
}

func (w *world) netportMode() string { return modeOf(w.netportRelay) }

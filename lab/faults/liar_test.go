package faults

import (
	"fmt"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// T29: a relay that names ports that are not its own is dropped, and another is asked; portals are sent nowhere else.
func TestServerDropsRelaysThatLie(t *testing.T) {
	w := newWorld(t)
	ln := w.plc.Listen(echoPort)
	w.allow(w.echoes()[0])
	host := w.lab.Public("liar")
	id := w.identity(identity.Relay, "liar", "--address", host.Addr().String())
	for _, port := range []uint16{0, 53, 443, 19_999, 21_001} {
		t.Run(fmt.Sprintf("port %d", port), func(t *testing.T) {
			w.factory.Restart() // no tunnel is left
			w.laptop.WaitUp("tcp")
			liar := w.join(host, id)
			liar.send(wire.RelayReady{First: 20_000, Last: 21_000, Capacity: 1_000_000, Transports: wire.TransportSplice})
			await.Until(t, "ready at the server", func() error { return w.relayIsReady("liar") })
			arrived, mark := host.CountArrivals(), w.Server.Process().Mark()
			served := make(chan error, 1)
			client := w.dial("tcp", entryPort)
			go func() {
				service, err := ln.Accept()
				if err == nil {
					service.Close()
				}
				served <- err
			}()
			created, err := wire.ParseCreateSession(liar.next(wire.TypeCreateSession))
			if err != nil {
				t.Fatal(err)
			}
			before := arrived()
			liar.send(wire.SessionReady{ID: created.ID, TCP: port})
			if err := <-served; err != nil {
				t.Fatal(err)
			}
			client.Close()
			if relay := w.relayInUse(); relay != "relay" {
				t.Errorf("the tunnel is at %s", relay)
			}
			for { // what the server says, and that it hangs up
				if _, _, err := liar.read(); err != nil {
					break
				}
			}
			wantLogged(t, w.Server.Daemon, mark, "liar", lieAbout(port))
			const goodbye = 20 // packets of the control connection
			if got := arrived().Packets - before.Packets; got > goodbye {
				t.Errorf("%d packets reached the relay that lied", got)
			}
		})
	}
}

// lieAbout is what the server says of an answer with the port.
func lieAbout(port uint16) string {
	if port == 0 {
		return "answered without a port"
	}
	return fmt.Sprintf("answered with port %d", port)
}

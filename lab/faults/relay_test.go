package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// relayInUse is the name of the relay that laptop's tunnel to factory uses.
func (w *world) relayInUse() string {
	w.t.Helper()
	for _, tunnel := range w.laptop.Status().Tunnels {
		if tunnel.Peer == "factory" && tunnel.Up {
			return tunnel.Relay
		}
	}
	w.t.Fatalf("there is no tunnel: %+v", w.laptop.Status())
	return ""
}

// Streams on a relay that dies end with a reset at both applications. New connections go over whatever relay there is.
func TestRelayKilledResetsItsStreamsAndAnotherTakesOver(t *testing.T) {
	w := newWorld(t)
	relays := map[string]*daemon.Relay{"relay": w.relay, "relay-2": w.Relay(w.lab.Public("relay-2"))}
	ln := w.plc.Listen(echoPort)
	w.allow(w.echoes()[0])

	streams := []pair{w.connect(entryPort, ln), w.connect(entryPort, ln)}
	first := w.relayInUse()
	relays[first].Kill()
	for _, s := range streams {
		s.reset(t)
	}
	again := w.connect(entryPort, ln)
	second := w.relayInUse()
	if second == first {
		t.Fatalf("the tunnel is still said to be at %s, which is dead", first)
	}

	// With none, a client is turned away at once; with the first again, it is served.
	relays[second].Kill()
	again.reset(t)
	await.Until(t, "noticed by the server that no relay is there", func() error {
		if out := w.Server.Run("status"); !strings.Contains(out, "0 of 2 ready") {
			return fmt.Errorf("it says\n%s", out)
		}
		return nil
	})
	w.wantTurnedAway(entryPort, 3*time.Second)
	wantExplained(t, w.laptop, "tcp", "It fails at the relay: none is connected to the server")
	relays[first].Start()
	welcome(ln)
	// For a moment clients still hear of the attempt that has failed (250 ms).
	await.Within(t, "served by the relay that is back", 2*time.Second, func() error { return w.welcomed(entryPort) })
}

// welcome serves every client of a service, until its listener is closed.
func welcome(ln net.Listener) {
	ln.(*net.TCPListener).SetDeadline(time.Time{})
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "welcome")
			conn.Close()
		}
	}()
}

// welcomed reports if a client on laptop is not served.
func (w *world) welcomed(port uint16) error { return w.welcomedAt(w.laptop.Host(), port) }

// welcomedAt is welcomed for a client on another entry portal's machine.
func (w *world) welcomedAt(host *topo.Host, port uint16) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), await.Patience)
	defer cancel()
	conn, err := host.DialContext(ctx, "tcp", local(port))
	if err != nil {
		return err
	}
	defer conn.Close()
	await.Limit(w.t, conn)
	got, err := io.ReadAll(conn)
	if err == nil && string(got) != "welcome" {
		err = fmt.Errorf("the client got %q", got)
	}
	return err
}

// A relay whose machine is gone says nothing: no reset, no ICMP. The carriers notice by themselves.
func TestSilentRelayIsNoticed(t *testing.T) {
	w := newWorld(t)
	ln := w.plc.Listen(echoPort)
	w.allow(w.echoes()[0])
	stream := w.connect(entryPort, ln)

	w.relay.Host().SetRules(topo.DropAll)
	start := time.Now()
	if _, err := stream.client.Write([]byte("anybody there?")); err != nil {
		t.Fatal(err)
	}
	stream.reset(t)
	// A look every 5 s: the one that finds the last answer, two that ask, one that gives up.
	const most = 4*5*time.Second + 2*time.Second
	took := time.Since(start)
	t.Logf("noticed after %v", took)
	if took > most {
		t.Errorf("it took %v until the streams were reset, want %v at most", took, most)
	}
	w.relay.Host().SetRules()
	w.relay.WaitReady()
	w.connect(entryPort, ln)
}

// relayIsReady reports why the server would not use the relay.
func (w *world) relayIsReady(name string) error {
	var relays []struct {
		Name  string
		State struct{ Ready bool }
	}
	if err := json.Unmarshal([]byte(w.Server.Run("relays", "--json")), &relays); err != nil {
		return err
	}
	for _, r := range relays {
		if r.Name == name && r.State.Ready {
			return nil
		}
	}
	return fmt.Errorf("the server has %+v", relays)
}

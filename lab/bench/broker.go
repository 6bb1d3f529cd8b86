package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/proto/wire"
)

// brokered is a relay whose sessions the bench makes itself, without portals.
type brokered struct {
	w      *world
	broker *daemon.Broker
	*daemon.Relay
}

// newBrokered returns what starts a relay on a host of its own, with the broker as its server.
func (w *world) newBrokered(host string, mode daemon.Option) func() (brokered, error) {
	return sync.OnceValues(func() (brokered, error) {
		broker := w.broker()
		return brokered{w: w, broker: broker, Relay: broker.Relay(w.lab.Public(host), mode)}, nil
	})
}

// open makes a session between the client's and the service's machine.
func (b brokered) open(transports wire.Transports) daemon.Session {
	return b.broker.Open(b.Relay, daemon.Terms{
		Portals: [2]string{entryPump, exitPump}, Transports: transports,
		Sources: [2]netip.Addr{b.w.natA.Addr(), b.w.natB.Addr()},
	})
}

func (b brokered) close(s daemon.Session) { b.broker.Close(b.Relay, s) }

func (b brokered) mode() string { return modeOf(b.Relay) }

// at is one of the relay's ports.
func (b brokered) at(port uint16) netip.AddrPort { return netip.AddrPortFrom(b.Host().Addr(), port) }

// modeOf is how a relay says that it forwards, and how it has joined the TCP connections of the sessions that it has now.
func modeOf(r *daemon.Relay) string {
	var status struct {
		Mode     string `json:"mode"`
		Sessions []struct {
			Spliced int `json:"tcp_joined"`
			Packet  int `json:"tcp_packet"`
		} `json:"sessions"`
	}
	r.Status(&status)
	mode, spliced, packet := status.Mode, 0, 0
	for _, s := range status.Sessions {
		spliced += s.Spliced
		packet += s.Packet
	}
	if packet > 0 {
		mode += ", packet mode"
	}
	if spliced > 0 {
		mode += ", splice"
	}
	return mode
}

// issueTo makes a portal's certificate and key, which this program can read, and returns their folder.
func (w *world) issueTo(name string) (string, error) {
	dir := filepath.Join(w.server.DirOf(daemon.User), name)
	w.network.Server.Run("issue", "portal", name, "--out", dir)
	return dir, os.Chown(filepath.Join(dir, "key.pem"), os.Geteuid(), os.Getegid())
}

package main

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"

	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/leg/legtest"
	"github.com/netport/netport/proto/wire"
)

const (
	wireGuardName = "wireguard-go"

	wireGuardPort   = 51820
	wireGuardDevice = "wg0"
)

// wireGuardAddrs are those inside the tunnel, the client's and the service's.
var wireGuardAddrs = [2]netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")}

// wireGuardProgram finds the program: beside this one, where make bench builds it, or in PATH.
func (w *world) wireGuardProgram() (string, error) {
	if built, err := exec.LookPath(filepath.Join(filepath.Dir(w.self), "tools", "wireguard")); err == nil {
		return built, nil
	}
	return exec.LookPath("wireguard-go")
}

// startWireGuard makes a WireGuard tunnel over a UDP session of the same relay program, as Netport's QUIC has one. The
// bench binds each leg from the very port that WireGuard takes over then.
func (w *world) startWireGuard() (way, error) {
	program, err := w.wireGuardProgram()
	if err != nil {
		return way{}, err
	}
	relay, err := w.kernelRelay()
	if err != nil {
		return way{}, err
	}
	s := relay.open(wire.TransportUDP)
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return way{}, err
		}
	}
	for i, host := range []*topo.Host{w.client, w.service} {
		if err := w.bindFrom(host, wireGuardPort, leg.ID{Session: s.ID, Leg: uint8(i)}, s.Secrets[i], relay.at(s.Ready.UDP)); err != nil {
			return way{}, err
		}
		running := host.Start(host.Command(program, "-f", wireGuardDevice))
		settings := fmt.Sprintf("set=1\nprivate_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%v\npersistent_keepalive_interval=15\nallowed_ip=%v/32\n\n",
			hex.EncodeToString(keys[i].Bytes()), wireGuardPort, hex.EncodeToString(keys[1-i].PublicKey().Bytes()),
			relay.at(s.Ready.UDP), wireGuardAddrs[1-i])
		if err := until("wireguard-go is set up", running.Done(), func() error { return configureWireGuard(host, settings) }); err != nil {
			return way{}, err
		}
		host.Run("ip", "address", "add", wireGuardAddrs[i].String()+"/24", "dev", wireGuardDevice)
		host.Run("ip", "link", "set", wireGuardDevice, "up")
	}
	via := way{name: wireGuardName, addr: func(port uint16) string { return netip.AddrPortFrom(wireGuardAddrs[1], port).String() }}
	return via, until("WireGuard's tunnel carries", nil, func() error { return listens(w.client, via.addr(echoPort)) })
}

// bindFrom binds a leg from a port of the host, which is free again then.
func (w *world) bindFrom(host *topo.Host, port uint16, id leg.ID, secret wire.Secret, relay netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	conn := host.ListenUDP(port)
	defer conn.Close()
	_, err := legtest.Bind(ctx, leg.NewBinder(id, secret, 1), conn, relay)
	return err
}

// configureWireGuard says to a running wireguard-go what it is to do, on its own socket, in its configuration protocol.
func configureWireGuard(host *topo.Host, settings string) (err error) {
	host.Inside(func() error {
		var conn net.Conn
		if conn, err = net.Dial("unix", "/var/run/wireguard/"+wireGuardDevice+".sock"); err != nil {
			return nil // not yet
		}
		defer conn.Close()
		if _, err = io.WriteString(conn, settings); err != nil {
			return nil
		}
		var answer string
		if answer, err = bufio.NewReader(conn).ReadString('\n'); err == nil && answer != "errno=0\n" {
			err = fmt.Errorf("wireguard-go says %q", answer)
		}
		return nil
	})
	return err
}

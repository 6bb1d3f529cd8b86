package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/netport/netport/bpf"
)

// The session ports of kernel planes that the bench opens itself.
const (
	tablePort       = 20000 // the first
	tablePorts      = 8192
	tablePacketPort = tablePort + tablePorts // of what is for packet mode
)

// openKernel starts the relay's kernel plane at the cable's far end, in the mode, with a session for each flow of the
// traffic: its packets go on to what peer says. It is the plane as the relay has it, without the daemon, which
// has no part in a packet that belongs to a session.
func (c *cable) openKernel(mode string, t traffic, peer func(flow int) netip.AddrPort) (k *bpf.Kernel, err error) {
	c.far.Do(func() {
		k, err = bpf.Open(bpf.Options{
			Mode: mode, Interfaces: []string{c.far.device.Name}, Capacity: t.flows,
			First: tablePort, Last: tablePacketPort + tablePorts - 1,
			PacketFirst: tablePacketPort, PacketLast: tablePacketPort + tablePorts - 1,
			Log: slog.New(slog.DiscardHandler),
		})
	})
	if err != nil {
		return nil, err
	}
	if got := k.Interfaces(); len(got) != 1 || got[0].Mode != mode {
		err = fmt.Errorf("want mode %s at one interface, got %+v", mode, got)
	} else {
		err = c.fill(k, t, peer)
	}
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// fillAtOnce is how many sessions go into a table in one step.
const fillAtOnce = 10_000

func (c *cable) fill(k *bpf.Kernel, t traffic, peer func(flow int) netip.AddrPort) error {
	entries := make([]bpf.Entry, 0, fillAtOnce)
	for n := range t.flows {
		source, target := t.flow(n)
		leg := func(remote netip.AddrPort) bpf.Leg {
			return bpf.Leg{Remote: remote, Port: target.Port(), Local: target.Addr()}
		}
		entries = append(entries, bpf.Entry{
			Pair:  bpf.Pair{Protocol: bpf.UDP, A: leg(source), B: leg(peer(n))},
			Terms: bpf.Terms{Lifetime: time.Hour},
		})
		if len(entries) == cap(entries) || n == t.flows-1 {
			if err := k.AddBatch(entries); err != nil {
				return err
			}
			entries = entries[:0]
		}
	}
	return nil
}

// nth is the address so many after another.
func nth(first netip.Addr, n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, number(first)+n)))
}

package kernel

import (
	"encoding/binary"
	"net/netip"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/answer"
	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/packet"
)

// handle takes what the program leaves to the daemon.
func (r *Relay) handle(e bpf.Event) {
	switch e.Kind {
	case bpf.Handshake:
		r.machine.Handle(r.cfg.Now(), e.Packet)
	case bpf.Forward:
		r.forward(e.Packet)
	case bpf.TooBig:
		r.cfg.Sender.TooBig(e.Packet, e.MTU)
	}
}

// forward sends on a packet of a flow as the program would have.
func (r *Relay) forward(b []byte) {
	p, ok := packet.ParseIP(b)
	if !ok || len(p.Transport()) < 4 {
		r.cfg.Drops.Add(drop.Malformed)
		return
	}
	ports := p.Transport() // of TCP and UDP alike
	source, dest := binary.BigEndian.Uint16(ports), binary.BigEndian.Uint16(ports[2:])
	from := bpf.Leg{Remote: netip.AddrPortFrom(p.Source, source), Local: p.Dest, Port: dest}
	to, ok := r.cfg.Plane.Other(bpf.Protocol(p.Protocol), from)
	if !ok {
		r.cfg.Drops.Add(drop.UnknownSource)
		return
	}
	r.cfg.Sender.Forward(b, to, 0)
}

// edge is what the machine of handshakes acts through.
type edge struct {
	Sender
	r *Relay
}

var _ answer.Edge = edge{}

// Install implements answer.Edge.
func (e edge) Install(f answer.Flow) error {
	err := e.r.install(f)
	if err != nil {
		e.r.cfg.Log.Warn("TCP connection refused: the kernel does not take it", "session", f.Session, "error", err)
	}
	return err
}

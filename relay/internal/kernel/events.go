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
		r.sent(r.cfg.Sender.TooBig(e.Packet, e.MTU))
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
	r.sent(r.cfg.Sender.Forward(b, to, 0))
}

// sent counts what could not be sent.
func (r *Relay) sent(err error) {
	if err != nil {
		r.cfg.Drops.Add(drop.SendFailed)
		r.cfg.Log.Debug("packet not sent", "error", err)
	}
}

// edge is what the machine of handshakes acts through.
type edge struct{ r *Relay }

var _ answer.Edge = edge{}

func (e edge) Send(b []byte) { e.r.sent(e.r.cfg.Sender.Send(b)) }

func (e edge) Install(f answer.Flow) error {
	err := e.r.install(f)
	if err != nil {
		e.r.cfg.Log.Warn("TCP connection refused: the kernel does not take it", "session", f.Session, "error", err)
	}
	return err
}

func (e edge) Forward(b []byte, to bpf.Leg, mss uint16) { e.r.sent(e.r.cfg.Sender.Forward(b, to, mss)) }

func (e edge) MTU(dest netip.Addr) int { return e.r.cfg.Sender.MTU(dest) }

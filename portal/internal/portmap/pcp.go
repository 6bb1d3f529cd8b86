package portmap

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/netport/netport/proto/wire"
)

// RFC 6887 sections 7.1, 7.2 and 11.1.
const (
	pcpVersion  = 2
	pcpAnnounce = 0
	pcpMap      = 1
	pcpAnswer   = 0x80 // beside the opcode
	pcpHead     = 24
	pcpMapLen   = pcpHead + 36
)

// pcp speaks PCP.
type pcp struct {
	place
	port uint16
	epoch
	nonces map[Port][12]byte
}

// findPCP asks whether the router speaks PCP.
func findPCP(ctx context.Context, at place, port uint16) (speaker, error) {
	p := &pcp{place: at, port: port, nonces: make(map[Port][12]byte)}
	_, err := p.exchange(ctx, p.head(pcpAnnounce, 0), nil)
	if err != nil && !errors.As(err, new(refusal)) {
		return nil, err // one that knows no ANNOUNCE says so, in words of PCP
	}
	return p, nil
}

// head is a request without what belongs to its opcode.
func (p *pcp) head(opcode byte, lease time.Duration) []byte {
	b := []byte{pcpVersion, opcode, 0, 0}
	b = binary.BigEndian.AppendUint32(b, uint32(lease/time.Second))
	client := p.local.As16()
	return append(b, client[:]...)
}

// request is a MAP. A lease of zero takes the mapping back.
func (p *pcp) request(port Port, near netip.AddrPort, lease time.Duration) []byte {
	nonce, ok := p.nonces[port]
	if !ok {
		rand.Read(nonce[:])
		p.nonces[port] = nonce
	}
	b := append(p.head(pcpMap, lease), nonce[:]...)
	b = append(b, protocolNumber(port.Transport), 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, port.Number)
	b = binary.BigEndian.AppendUint16(b, near.Port())
	external := near.Addr().As16()
	return append(b, external[:]...)
}

// protocolNumber is IANA's.
func protocolNumber(t wire.CandidateTransport) byte {
	if t == wire.CandidateTCP {
		return 6
	}
	return 17
}

// exchange returns the answer to a request. Of a MAP it has the same nonce, protocol and
// internal port, unless it is a refusal of a router that knows none.
func (p *pcp) exchange(ctx context.Context, request, same []byte) (answer []byte, err error) {
	old := false
	askErr := ask(ctx, p.place, p.port, request, func(b []byte) bool {
		if old = len(b) >= 4 && b[0] == 0 && b[1]&pcpAnswer != 0 && binary.BigEndian.Uint16(b[2:]) == 1; old {
			return true // RFC 6886 section 3.5 in answer to a version that it does not know
		}
		if len(b) < pcpHead || len(b)%4 != 0 || b[0] != pcpVersion || b[1] != request[1]|pcpAnswer {
			return false
		}
		if same != nil && (len(b) < pcpMapLen || !bytes.Equal(b[pcpHead:pcpHead+len(same)], same)) {
			return false
		}
		answer = bytes.Clone(b)
		return true
	})
	switch {
	case askErr != nil:
		return nil, askErr
	case old:
		return nil, errors.New("the router knows NAT-PMP only")
	}
	p.take(binary.BigEndian.Uint32(answer[8:]), time.Now(), false)
	if code := answer[3]; code != 0 {
		return nil, refusal{pcpCode(code)}
	}
	return answer, nil
}

// pcpCode is a result code in words (RFC 6887 section 7.4).
func pcpCode(code byte) string {
	words := [...]string{
		2: "not authorized", 3: "malformed request", 4: "unknown opcode", 5: "unknown option", 6: "malformed option", 7: "its own network does not work, or it has no public address",
		8: "it has no resources left", 9: "unknown protocol", 10: "this machine has all the mappings that it may have", 11: "it cannot give the external address",
		12: "a NAT lies between it and this machine", 13: "too many peers",
	}
	if int(code) < len(words) && words[code] != "" {
		return words[code]
	}
	return fmt.Sprintf("PCP code %d", code)
}

func (p *pcp) add(ctx context.Context, port Port, near netip.AddrPort) (grant, error) {
	request := p.request(port, near, lease)
	b, err := p.exchange(ctx, request, request[pcpHead:pcpHead+18]) // nonce to internal port
	if err != nil {
		return doubtful(err, near), err
	}
	external := netip.AddrFrom16([16]byte(b[44:60])).Unmap()
	return grant{
		external: netip.AddrPortFrom(external, binary.BigEndian.Uint16(b[42:])),
		lease:    time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Second,
	}, nil
}

func (p *pcp) remove(ctx context.Context, port Port, _ netip.AddrPort) error {
	// RFC 6887 section 15: the suggested address and port are zero then.
	request := p.request(port, netip.AddrPortFrom(netip.IPv4Unspecified(), 0), 0)
	_, err := p.exchange(ctx, request, request[pcpHead:pcpHead+18])
	return err
}

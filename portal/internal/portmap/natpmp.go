package portmap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/netport/netport/proto/wire"
)

// RFC 6886 sections 3.2 and 3.3.
const (
	pmpExternal    = 0
	pmpMapUDP      = 1
	pmpMapTCP      = 2
	pmpAnswer      = 128
	pmpHead        = 8
	pmpExternalLen = 12
	pmpMapLen      = 16
)

// natpmp speaks NAT-PMP.
type natpmp struct {
	place
	port uint16
	epoch
}

// findNATPMP asks whether the router speaks NAT-PMP.
func findNATPMP(ctx context.Context, at place, port uint16) (speaker, error) {
	p := &natpmp{place: at, port: port}
	if _, err := p.external(ctx); err != nil && !errors.As(err, new(refusal)) {
		return nil, err
	}
	return p, nil
}

// external asks for the router's external address.
func (p *natpmp) external(ctx context.Context) (netip.Addr, error) {
	b, err := p.exchange(ctx, []byte{0, pmpExternal}, pmpExternalLen, nil)
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.AddrFrom4([4]byte(b[pmpHead:])), nil
}

// exchange returns the answer to a request, which has so many bytes, unless it is a refusal,
// and is for the same internal port.
func (p *natpmp) exchange(ctx context.Context, request []byte, length int, same []byte) (answer []byte, err error) {
	err = ask(ctx, p.place, p.port, request, func(b []byte) bool {
		if len(b) < pmpHead || b[0] != 0 || b[1] != request[1]+pmpAnswer {
			return false
		}
		if code := binary.BigEndian.Uint16(b[2:]); code == 0 && (len(b) < length || !bytes.HasPrefix(b[pmpHead:], same)) {
			return false
		}
		answer = bytes.Clone(b)
		return true
	})
	if err != nil {
		return nil, err
	}
	p.take(binary.BigEndian.Uint32(answer[4:]), time.Now(), true)
	if code := binary.BigEndian.Uint16(answer[2:]); code != 0 {
		return nil, refusal{pmpCode(code)}
	}
	return answer, nil
}

// pmpCode is a result code in words (RFC 6886 section 3.5).
func pmpCode(code uint16) string {
	words := [...]string{1: "unknown version", 2: "not authorized", 3: "its own network does not work, or it has no public address", 4: "it has no resources left", 5: "unknown opcode"}
	if int(code) < len(words) && words[code] != "" {
		return words[code]
	}
	return fmt.Sprintf("NAT-PMP code %d", code)
}

// request asks for a mapping. A lease of zero takes it back.
func (p *natpmp) request(port Port, external uint16, lease time.Duration) []byte {
	opcode := byte(pmpMapUDP)
	if port.Transport == wire.CandidateTCP {
		opcode = pmpMapTCP
	}
	b := binary.BigEndian.AppendUint16([]byte{0, opcode, 0, 0}, port.Number)
	b = binary.BigEndian.AppendUint16(b, external)
	return binary.BigEndian.AppendUint32(b, uint32(lease/time.Second))
}

func (p *natpmp) add(ctx context.Context, port Port, near netip.AddrPort) (grant, error) {
	external, err := p.external(ctx) // it may be another than at first
	if err != nil {
		return grant{}, err
	}
	lost := p.lost
	request := p.request(port, near.Port(), lease)
	b, err := p.exchange(ctx, request, pmpMapLen, request[4:6])
	p.lost = p.lost || lost
	if err != nil {
		return doubtful(err, near), err
	}
	return grant{
		external: netip.AddrPortFrom(external, binary.BigEndian.Uint16(b[10:])),
		lease:    time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Second,
	}, nil
}

func (p *natpmp) remove(ctx context.Context, port Port, _ netip.AddrPort) error {
	request := p.request(port, 0, 0)
	_, err := p.exchange(ctx, request, pmpMapLen, request[4:6])
	return err
}

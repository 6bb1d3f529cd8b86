package packet

import (
	"encoding/binary"
	"iter"

	"github.com/netport/netport/relay/internal/drop"
)

// Segmenter cuts TCP packets that were joined by the sender's or the receiver's
// offload into ones that fit a link. It owns the room for one of them and is
// not for use by several goroutines at once. The zero Segmenter is ready to use.
type Segmenter struct{ room []byte }

// PayloadLimit returns how many bytes of payload a TCP packet like b may have so
// that it is at most mtu bytes long and its payload with its options at most mss
// (RFC 6691), and whether b has no more. 0 bounds nothing; the limit is never
// less than 1. What is no TCP packet fits: it cannot be cut.
func PayloadLimit(b []byte, mtu, mss int) (limit int, fits bool) {
	t, p, ok := headers(b)
	if !ok {
		return 0, true
	}
	payload := len(p.Bytes) - p.Header - t
	limit = max(payload, 1)
	if mtu > 0 {
		limit = min(limit, mtu-p.Header-t)
	}
	if mss > 0 {
		limit = min(limit, mss-(t-tcpHeader))
	}
	limit = max(limit, 1)
	return limit, payload <= limit
}

// headers returns the length of the TCP header.
func headers(b []byte) (int, IP, bool) {
	p, ok := ParseIP(b)
	if !ok || p.Protocol != protocolTCP || len(p.Transport()) < tcpHeader {
		return 0, IP{}, false
	}
	t := int(p.Transport()[12]>>4) * 4
	return t, p, t >= tcpHeader && t <= len(p.Transport())
}

// Cut yields packet b as packets of at most limit bytes of payload, each good
// until the next. The first keeps CWR, the last PSH and FIN (RFC 3168 section
// 6.1.2); all have full checksums, so b's must be right: otherwise there is
// nothing, and a reason.
func (s *Segmenter) Cut(b []byte, limit int) (iter.Seq[[]byte], drop.Reason) {
	t, p, ok := headers(b)
	if !ok || limit < 1 {
		return nil, drop.Malformed
	}
	if !verify(p) {
		return nil, drop.Checksum
	}
	return func(yield func([]byte) bool) {
		start := p.Header + t
		payload := p.Bytes[start:]
		flags := p.Bytes[p.Header+13]
		seq := binary.BigEndian.Uint32(p.Bytes[p.Header+4:])
		id := binary.BigEndian.Uint16(p.Bytes[4:])
		for sent := 0; ; {
			chunk := payload[sent:min(sent+limit, len(payload))]
			s.room = append(append(s.room[:0], p.Bytes[:start]...), chunk...)
			q := IP{Protocol: protocolTCP, Bytes: s.room, Header: p.Header}
			binary.BigEndian.PutUint32(s.room[p.Header+4:], seq+uint32(sent))
			left := flags
			if sent > 0 {
				left &^= byte(CWR)
			}
			sent += len(chunk)
			if sent < len(payload) {
				left &^= byte(PSH | FIN)
			}
			s.room[p.Header+13] = left
			if p.Header == header4 {
				binary.BigEndian.PutUint16(s.room[2:], uint16(len(s.room)))
				binary.BigEndian.PutUint16(s.room[4:], id)
				id++
				complete4(s.room)
			} else {
				binary.BigEndian.PutUint16(s.room[4:], uint16(len(s.room)-header6))
			}
			complete(q)
			if !yield(s.room) || sent == len(payload) {
				return
			}
		}
	}, drop.None
}

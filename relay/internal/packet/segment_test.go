package packet

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/netport/netport/relay/internal/drop"
)

func joined(six bool, payload []byte) []byte {
	from, to := a4, b4
	if six {
		from, to = a6, b6
	}
	return AppendTCP(nil, TCP{
		Source: from, Dest: to, Seq: 0xffffff00, Ack: 77, Flags: ACK | PSH | FIN | CWR, Window: 9,
		Options: Offer{Stamps: true, Time: 5, EchoTime: 6}.AppendTo(nil), Payload: payload,
	})
}

func TestJoinedPacketIsCut(t *testing.T) {
	payload := make([]byte, 60_000)
	for i := range payload {
		payload[i] = byte(i * 7 / 3)
	}
	for _, six := range []bool{false, true} {
		for _, whole := range []bool{false, true} {
			b := joined(six, payload)
			if !whole {
				partially(b)
			}
			limit, fits := PayloadLimit(b, 1500, 1460)
			want := 1448 // of IPv4: 20 + 20 + 12 + 1448 = 1500
			if six {
				want = 1428
			}
			if fits || limit != want {
				t.Fatalf("limit %d, fits %v; want %d", limit, fits, want)
			}
			var s Segmenter
			pieces, why := s.Cut(b, limit)
			if why != drop.None {
				t.Fatal(why)
			}
			var got []byte
			n, id := 0, -1
			for q := range pieces {
				wantSums(t, q)
				p, why := ParseTCP(q)
				if why != drop.None || p.Seq != 0xffffff00+uint32(len(got)) || p.Ack != 77 || p.Window != 9 || len(q) > 1500 {
					t.Fatalf("piece %d: %v %+v", n, why, p)
				}
				last := len(got)+len(p.Payload) == len(payload)
				flags := ACK
				if n == 0 {
					flags |= CWR
				}
				if last {
					flags |= PSH | FIN
				} else if len(p.Payload) != limit {
					t.Errorf("piece %d has %d bytes of payload, want %d", n, len(p.Payload), limit)
				}
				if p.Flags != flags {
					t.Errorf("piece %d has flags %x, want %x", n, p.Flags, flags)
				}
				if !six {
					if now := int(binary.BigEndian.Uint16(q[4:])); now != id+1 {
						t.Errorf("piece %d has IP id %d, want %d", n, now, id+1)
					}
					id++
				}
				got = append(got, p.Payload...)
				n++
			}
			if !bytes.Equal(got, payload) {
				t.Errorf("%d bytes are not the %d that came", len(got), len(payload))
			}
		}
	}
}

func TestPayloadLimitIsTheSmallerOfLinkAndSegment(t *testing.T) {
	b := joined(false, make([]byte, 3000)) // 12 bytes of options
	for _, c := range []struct{ mtu, mss, want int }{
		{1500, 0, 1448}, {0, 1460, 1448}, {1400, 1460, 1348}, {1500, 536, 524}, {0, 0, 3000}, {9000, 8960, 3000}, {3052, 3012, 3000}, {3051, 0, 2999}, {1, 1, 1},
	} {
		if got, fits := PayloadLimit(b, c.mtu, c.mss); got != c.want || fits != (got == 3000) {
			t.Errorf("MTU %d, MSS %d: %d, fits %v; want %d", c.mtu, c.mss, got, fits, c.want)
		}
	}
	if _, fits := PayloadLimit(datagram(a4, b4, make([]byte, 3000)), 1500, 0); !fits {
		t.Error("a datagram is to be cut")
	}
}

func TestDamagedPacketIsNotCut(t *testing.T) {
	b := joined(false, make([]byte, 3000))
	b[1000]++
	var s Segmenter
	if _, why := s.Cut(b, 1000); why != drop.Checksum {
		t.Errorf("%v, want %v: new checksums would hide it", why, drop.Checksum)
	}
}

package packet

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestTooBigAnswersTheSource(t *testing.T) {
	for _, c := range []struct {
		name     string
		packet   []byte
		mtu      int
		wantMTU  uint32
		wantSize int
		head     int
		kind     []byte
	}{
		{"IPv4", joined(false, make([]byte, 1400)), 1400, 1400, 576, 20, []byte{3, 4}},
		{"IPv4, small", syn(a4, b4), 1400, 1400, 20 + 8 + 60, 20, []byte{3, 4}},
		{"IPv4, an MTU that would stop the flow", syn(a4, b4), 68, 576, 20 + 8 + 60, 20, []byte{3, 4}},
		{"IPv6", joined(true, make([]byte, 1400)), 1400, 1400, 1280, 40, []byte{2, 0}},
		{"IPv6, MTU below the least", syn(a6, b6), 1000, 1280, 40 + 8 + 80, 40, []byte{2, 0}},
		{"UDP", datagram(a4, b4, make([]byte, 1400)), 1300, 1300, 576, 20, []byte{3, 4}},
	} {
		got, ok := AppendTooBig([]byte{1, 2}, append(bytes.Clone(c.packet), 9, 9, 9), c.mtu)
		if !ok || len(got) != 2+c.wantSize {
			t.Errorf("%s: %d bytes, want %d", c.name, len(got)-2, c.wantSize)
			continue
		}
		got = got[2:]
		p, ok := ParseIP(got)
		asked, _ := ParseIP(c.packet)
		message := got[c.head:]
		if !ok || p.Source != asked.Dest || p.Dest != asked.Source || !bytes.Equal(message[:2], c.kind) ||
			binary.BigEndian.Uint32(message[4:]) != c.wantMTU || !bytes.Equal(message[8:], c.packet[:len(message)-8]) {
			t.Errorf("%s: %x", c.name, got)
		}
		s := uint64(0)
		if c.head == 40 {
			s = pseudo(p)
		}
		if fold(sum(message, s)) != 0xffff {
			t.Errorf("%s: the checksum is wrong: %x", c.name, got)
		}
	}
	icmp, _ := AppendTooBig(nil, syn(a4, b4), 1400)
	if answer, ok := AppendTooBig(nil, icmp, 1400); ok || len(answer) > 0 {
		t.Error("an ICMP error is answered (RFC 1122 section 3.2.2)")
	}
}

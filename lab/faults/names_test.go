package faults

import (
	"errors"
	"net"
)

// denyNames serves DNS and answers every question that there is no such name (RFC 1035 section 4.1.1).
func denyNames(conn *net.UDPConn) {
	const (
		header   = 12
		response = 0x80 // QR, in byte 2
		nxdomain = 3    // RCODE, in byte 3
	)
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil || n < header {
				continue
			}
			b[2] |= response
			b[3] = b[3]&0xf0 | nxdomain
			b[11] = 0 // no additional records: without EDNS the answer ends with the question
			conn.WriteToUDPAddrPort(b[:questionEnd(b[:n])], from)
		}
	}()
}

// questionEnd is where the first question ends.
func questionEnd(b []byte) int {
	i := 12
	for i < len(b) && b[i] != 0 {
		i += 1 + int(b[i])
	}
	return min(i+1+4, len(b))
}

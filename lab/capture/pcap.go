package capture

import (
	"encoding/binary"
	"time"
)

// The pcap format: draft-ietf-opsawg-pcap, sections 4 and 5.
const (
	magicNanoseconds = 0xa1b23c4d
	linkTypeEthernet = 1
)

func fileHeader() []byte {
	b := binary.LittleEndian.AppendUint32(nil, magicNanoseconds)
	b = binary.LittleEndian.AppendUint16(b, 2) // version 2.4
	b = binary.LittleEndian.AppendUint16(b, 4)
	b = binary.LittleEndian.AppendUint64(b, 0) // reserved
	b = binary.LittleEndian.AppendUint32(b, snapLength)
	return binary.LittleEndian.AppendUint32(b, linkTypeEthernet)
}

func packetHeader(at time.Time, captured, length int) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(at.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(at.Nanosecond()))
	b = binary.LittleEndian.AppendUint32(b, uint32(captured))
	return binary.LittleEndian.AppendUint32(b, uint32(length))
}

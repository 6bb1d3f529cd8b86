package packet

import "encoding/binary"

// Offer is what the options of a SYN say of its sender, as far as the relay
// understands them.
type Offer struct {
	MSS      uint16 // 0: not said
	Scales   bool   // a window scale is offered (RFC 7323 section 2)
	Shift    uint8  // the window scale, at most 14
	SACK     bool   // selective acknowledgements are permitted (RFC 2018)
	Stamps   bool   // timestamps are offered (RFC 7323 section 3)
	Time     uint32 // TSval
	EchoTime uint32 // TSecr; without meaning in a first SYN
}

// The options' kinds (IANA), and their lengths.
const (
	kindEnd   = 0
	kindNone  = 1
	kindMSS   = 2
	kindScale = 3
	kindSACK  = 4
	kindTime  = 8

	lengthMSS   = 4
	lengthScale = 3
	lengthSACK  = 2
	lengthTime  = 10

	// maxShift is the largest window scale; a larger one is taken for it (RFC
	// 7323 section 2.3).
	maxShift = 14
)

// ParseOffer reads the options of a SYN. Unknown ones are left out. It reports
// false if a length leads out of the options or is wrong for its kind. Of an
// option that is there twice the last counts.
func ParseOffer(b []byte) (o Offer, ok bool) {
	for len(b) > 0 {
		switch b[0] {
		case kindEnd:
			return o, true
		case kindNone:
			b = b[1:]
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			return Offer{}, false
		}
		length := int(b[1])
		if want, known := lengths[b[0]]; known && want != length {
			return Offer{}, false
		}
		switch v := b[2:length]; b[0] {
		case kindMSS:
			o.MSS = binary.BigEndian.Uint16(v)
		case kindScale:
			o.Scales, o.Shift = true, min(v[0], maxShift)
		case kindSACK:
			o.SACK = true
		case kindTime:
			o.Stamps = true
			o.Time, o.EchoTime = binary.BigEndian.Uint32(v), binary.BigEndian.Uint32(v[4:])
		}
		b = b[length:]
	}
	return o, true
}

var lengths = map[byte]int{kindMSS: lengthMSS, kindScale: lengthScale, kindSACK: lengthSACK, kindTime: lengthTime}

// AppendTo appends the offer as options, at most 20 bytes, in the order that
// Linux uses: some middleboxes have seen no other.
func (o Offer) AppendTo(b []byte) []byte {
	if o.MSS != 0 {
		b = append(b, kindMSS, lengthMSS)
		b = binary.BigEndian.AppendUint16(b, o.MSS)
	}
	switch {
	case o.SACK:
		b = append(b, kindSACK, lengthSACK)
	case o.Stamps:
		b = append(b, kindNone, kindNone)
	}
	switch {
	case o.Stamps:
		b = append(b, kindTime, lengthTime)
		b = binary.BigEndian.AppendUint32(b, o.Time)
		b = binary.BigEndian.AppendUint32(b, o.EchoTime)
	case o.SACK:
		b = append(b, kindNone, kindNone)
	}
	if o.Scales {
		b = append(b, kindNone, kindScale, lengthScale, o.Shift)
	}
	return b
}

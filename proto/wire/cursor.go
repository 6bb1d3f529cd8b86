package wire

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// ErrMalformed is returned by every parser for a body that is truncated, has
// bytes left over, or holds a value that its field does not allow.
var ErrMalformed = errors.New("malformed message")

// Reader consumes a message from front to back. A short read is sticky: every
// later read returns the zero value, so a parser checks once, in Done.
// A Reader never keeps or changes the bytes it reads.
type Reader struct {
	b   []byte
	bad bool
}

// NewReader returns a Reader over b.
func NewReader(b []byte) Reader { return Reader{b: b} }

// Reject marks the message as malformed: a field was read whole, but its
// value is not one that the protocol allows.
func (r *Reader) Reject() { r.bad = true }

// Done reports ErrMalformed if a read fell short, a value was rejected, or
// bytes are left over.
func (r *Reader) Done() error {
	if r.bad || len(r.b) > 0 {
		return ErrMalformed
	}
	return nil
}

// Bytes reads n bytes. The result shares memory with the message.
func (r *Reader) Bytes(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// Rest reads all bytes that are left. The result shares memory with the
// message.
func (r *Reader) Rest() []byte { return r.Bytes(len(r.b)) }

// Copy fills dst with the next len(dst) bytes.
func (r *Reader) Copy(dst []byte) { copy(dst, r.Bytes(len(dst))) }

// Uint8 reads one byte.
func (r *Reader) Uint8() uint8 {
	if b := r.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// Bool reads one byte that is 0 or 1.
func (r *Reader) Bool() bool {
	v := r.Uint8()
	if v > 1 {
		r.bad = true
	}
	return v == 1
}

// Uint16 reads a big-endian 16-bit number.
func (r *Reader) Uint16() uint16 {
	if b := r.Bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// Uint32 reads a big-endian 32-bit number.
func (r *Reader) Uint32() uint32 {
	if b := r.Bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// Uint64 reads a big-endian 64-bit number.
func (r *Reader) Uint64() uint64 {
	if b := r.Bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Blob reads a 16-bit length and that many bytes, at most limit.
// The result shares memory with the message.
func (r *Reader) Blob(limit int) []byte {
	n := int(r.Uint16())
	if n > limit {
		r.bad = true
		return nil
	}
	return r.Bytes(n)
}

// Text reads a Blob of valid UTF-8 of at most limit bytes.
func (r *Reader) Text(limit int) string {
	b := r.Blob(limit)
	if !utf8.Valid(b) {
		r.bad = true
		return ""
	}
	return string(b)
}

// Count reads a 16-bit number of elements that follow. It is refused when it
// exceeds limit, or when the bytes left cannot hold that many elements of at
// least size bytes each, so that nothing is ever allocated by a count alone.
func (r *Reader) Count(limit, size int) int {
	n := int(r.Uint16())
	if n > limit || n*size > len(r.b) {
		r.bad = true
		return 0
	}
	return n
}

// Addr reads an IP address: one byte of length (0, 4 or 16) and the address.
// An IPv4 address must be written in 4 bytes: the IPv4-mapped form is refused,
// so that an address has one encoding and one meaning. Length 0 is the zero
// Addr. Zones do not travel.
func (r *Reader) Addr() netip.Addr {
	n := r.Uint8()
	switch n {
	case 0:
		return netip.Addr{}
	case 4, 16:
		a, _ := netip.AddrFromSlice(r.Bytes(int(n)))
		if a.Is4In6() {
			r.bad = true
		}
		return a
	}
	r.bad = true
	return netip.Addr{}
}

// AddrPort reads an Addr and a 16-bit port. Neither may be zero.
func (r *Reader) AddrPort() netip.AddrPort {
	ap := netip.AddrPortFrom(r.Addr(), r.Uint16())
	if !ap.Addr().IsValid() || ap.Port() == 0 {
		r.bad = true
	}
	return ap
}

// AppendBlob appends what Reader.Blob reads. It panics above 65,535 bytes:
// the constructor of the message must have checked.
func AppendBlob(b, v []byte) []byte {
	if len(v) > 0xffff {
		panic("wire: blob of more than 65535 bytes")
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(len(v))), v...)
}

// AppendText appends what Reader.Text reads, cut to limit bytes on a rune
// boundary: a text is for people, and its end matters least. Bytes that are
// not UTF-8 become U+FFFD.
func AppendText(b []byte, s string, limit int) []byte {
	s = strings.ToValidUTF8(s, "\ufffd")
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return AppendBlob(b, []byte(s))
}

// AppendBool appends what Reader.Bool reads.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// AppendAddr appends what Reader.Addr reads; IPv4-mapped addresses are
// written as IPv4.
func AppendAddr(b []byte, a netip.Addr) []byte {
	s := a.Unmap().WithZone("").AsSlice()
	return append(append(b, byte(len(s))), s...)
}

// AppendAddrPort appends what Reader.AddrPort reads.
func AppendAddrPort(b []byte, ap netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(AppendAddr(b, ap.Addr()), ap.Port())
}

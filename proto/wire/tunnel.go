package wire

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
)

const (
	// FrameHeaderLen is the length of a tunnel frame's header in bytes.
	FrameHeaderLen = 8
	// MaxData is the most application bytes in one DATA frame.
	MaxData = 65536 - FrameHeaderLen - dataHeaderLen
	// MaxFrame is the longest body. OPEN is the longest: its fixed fields, a
	// grant and data.
	MaxFrame = 65536 + 4096

	dataHeaderLen = 12
	// DataOverhead is how many bytes stand before the application's bytes in
	// a DATA frame, header included: a buffer that keeps so much room in front
	// needs no copy to become a frame. DataOverhead + MaxData fills four TLS
	// records of 16,384 bytes exactly.
	DataOverhead = FrameHeaderLen + dataHeaderLen
)

// FrameType is the first byte of a tunnel frame. Append only.
type FrameType uint8

// The frame types.
const (
	FrameHello      FrameType = 1  // first frame of a carrier, both ways
	FramePing       FrameType = 2  // asks for a Pong with the same token
	FramePong       FrameType = 3  // answers a Ping
	FrameOpen       FrameType = 4  // opens a stream or a flow
	FrameData       FrameType = 5  // bytes of a stream from an offset on
	FrameAck        FrameType = 6  // what was written out, and how much more is taken
	FrameFin        FrameType = 7  // the stream ends at this offset
	FrameReset      FrameType = 8  // the stream or flow is over; its reason
	FrameResume     FrameType = 9  // moves a stream to this carrier
	FrameDatagram   FrameType = 10 // one datagram of a flow
	FrameCarrier    FrameType = 11 // the TLS client dials one more carrier
	FrameClose      FrameType = 12 // the sender closes the tunnel; its reason
	FramePad        FrameType = 13 // nothing; it fills a packet
	FrameCandidates FrameType = 14 // where the sender may be reached without a relay
)

func (t FrameType) String() string {
	names := [...]string{1: "HELLO", 2: "PING", 3: "PONG", 4: "OPEN", 5: "DATA", 6: "ACK", 7: "FIN", 8: "RESET", 9: "RESUME", 10: "DATAGRAM", 11: "CARRIER", 12: "CLOSE", 13: "PAD", 14: "CANDIDATES"}
	if int(t) < len(names) && names[t] != "" {
		return names[t]
	}
	return fmt.Sprintf("frame type %d", uint8(t))
}

// FrameHeader is the fixed start of a tunnel frame.
type FrameHeader struct {
	Type   FrameType
	Length int // of the body, at most MaxFrame
	Stream uint32
}

// PutTo writes the header to the first FrameHeaderLen bytes of b.
func (h FrameHeader) PutTo(b []byte) {
	binary.BigEndian.PutUint32(b, uint32(h.Type)<<24|uint32(h.Length))
	binary.BigEndian.PutUint32(b[4:], h.Stream)
}

// ParseFrameHeader reads a header from the first FrameHeaderLen bytes of b and
// refuses a length above MaxFrame, so that a caller may allocate by it.
func ParseFrameHeader(b []byte) (FrameHeader, error) {
	v := binary.BigEndian.Uint32(b)
	h := FrameHeader{Type: FrameType(v >> 24), Length: int(v & 0xffffff), Stream: binary.BigEndian.Uint32(b[4:])}
	if h.Length > MaxFrame {
		return FrameHeader{}, fmt.Errorf("%w: %v of %d bytes, at most %d are allowed", ErrMalformed, h.Type, h.Length, MaxFrame)
	}
	return h, nil
}

// Frame is the body of a tunnel frame.
type Frame interface {
	FrameType() FrameType
	AppendTo(b []byte) []byte
}

// AppendFrame appends a whole frame, header and body.
func AppendFrame(b []byte, stream uint32, f Frame) []byte {
	at := len(b)
	b = f.AppendTo(append(b, make([]byte, FrameHeaderLen)...))
	FrameHeader{Type: f.FrameType(), Length: len(b) - at - FrameHeaderLen, Stream: stream}.PutTo(b[at:])
	return b
}

// TunnelVersion is the version of the tunnel protocol spoken here.
const TunnelVersion = 2

// TunnelID names a tunnel. Both portals work it out from the first carrier's
// TLS session.
type TunnelID [16]byte

// IsZero reports whether the id is all zero, which names nothing.
func (id TunnelID) IsZero() bool { return id == TunnelID{} }

// String returns the first 8 hexadecimal digits.
func (id TunnelID) String() string { return hex.EncodeToString(id[:4]) }

// TunnelHello is the first frame each side sends on a carrier. Both sides must
// name the same session and connection; anything else closes the carrier. If
// both name the same tunnel, each with the proof that it knows the
// tunnel's secret, the carrier belongs to that; else it is the first one of a new
// tunnel.
//
//	version    uint16
//	session    [16]byte
//	connection uint16    number of the carrier in its session, from 0
//	tunnel     [16]byte  that the sender has with this peer, or zero
//	proof      [32]byte  made with the tunnel's secret for this carrier; zero if tunnel is
type TunnelHello struct {
	Version    uint16
	Session    SessionID
	Connection uint16
	Tunnel     TunnelID
	Proof      [32]byte
}

// FrameType implements Frame.
func (TunnelHello) FrameType() FrameType { return FrameHello }

// AppendTo implements Frame.
func (m TunnelHello) AppendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, m.Version)
	b = append(b, m.Session[:]...)
	b = binary.BigEndian.AppendUint16(b, m.Connection)
	return append(append(b, m.Tunnel[:]...), m.Proof[:]...)
}

// ParseTunnelHello reads a TunnelHello.
func ParseTunnelHello(b []byte) (TunnelHello, error) {
	r := NewReader(b)
	m := TunnelHello{Version: r.Uint16()}
	r.Copy(m.Session[:])
	m.Connection = r.Uint16()
	r.Copy(m.Tunnel[:])
	r.Copy(m.Proof[:])
	if m.Tunnel.IsZero() && m.Proof != [32]byte{} {
		r.Reject()
	}
	return finish(m, &r)
}

// TunnelPing asks the other portal whether the carrier lives. Its answer, a
// TunnelPong with the same token, overtakes nothing: it measures the way of a
// byte as it is.
//
//	token uint64
type TunnelPing struct{ Token uint64 }

// FrameType implements Frame.
func (TunnelPing) FrameType() FrameType { return FramePing }

// AppendTo implements Frame.
func (m TunnelPing) AppendTo(b []byte) []byte { return binary.BigEndian.AppendUint64(b, m.Token) }

// ParseTunnelPing reads a TunnelPing.
func ParseTunnelPing(b []byte) (TunnelPing, error) {
	r := NewReader(b)
	return finish(TunnelPing{Token: r.Uint64()}, &r)
}

// TunnelPong answers a TunnelPing.
//
//	token uint64    of the Ping
type TunnelPong struct{ Token uint64 }

// FrameType implements Frame.
func (TunnelPong) FrameType() FrameType { return FramePong }

// AppendTo implements Frame.
func (m TunnelPong) AppendTo(b []byte) []byte { return binary.BigEndian.AppendUint64(b, m.Token) }

// ParseTunnelPong reads a TunnelPong.
func ParseTunnelPong(b []byte) (TunnelPong, error) {
	r := NewReader(b)
	return finish(TunnelPong{Token: r.Uint64()}, &r)
}

// OpenKind says what an OPEN opens.
type OpenKind uint8

// The kinds of OPEN. OpenProbe dials the target like a stream, reports the
// outcome and ends it before a byte is carried ("netport-portal explain").
const (
	OpenStream OpenKind = 1
	OpenFlow   OpenKind = 2
	OpenProbe  OpenKind = 3
)

// Open opens the stream or flow of its frame header under a grant. The exit
// portal checks the grant and dials the grant's target: the frame has no
// address to dial. A grant travels whole until the exit is known to hold it,
// then as its id alone.
//
// The opener of a stream does not wait: DATA frames follow at once, in the
// same write where the application has spoken first, up to offset FirstLimit.
// The exit holds them while it dials. It answers with an ACK when the target
// is connected (its limit is at least FirstLimit), or with a RESET that has
// the reason. A probe is always answered by a RESET: ReasonNone if the target
// could be connected. A flow is not answered unless it is refused.
//
//	kind   uint8     1 stream, 2 flow, 3 probe
//	grant  [16]byte  id of the grant
//	signed blob      the grant itself, at most MaxGrant bytes; empty: the exit has it
//	limit  uint64    offset up to which the exit may send (streams; else 0)
//	source address   the client's address and port, for PROXY protocol; its
//	                 length is 0 where the client has none (a Unix socket)
//	port   uint16
//	data   rest      the first datagram of a flow, 0 to 65,507 bytes; else empty
type Open struct {
	Kind   OpenKind
	Grant  GrantID
	Signed []byte
	Limit  uint64
	Source netip.AddrPort
	Data   []byte
}

// FirstLimit is up to which offset the opener of a stream may send before the
// first ACK.
const FirstLimit = 64 << 10

// MaxGrant is the longest encoding of a signed grant in bytes.
const MaxGrant = 3072

// FrameType implements Frame.
func (Open) FrameType() FrameType { return FrameOpen }

// AppendTo implements Frame.
func (m Open) AppendTo(b []byte) []byte {
	b = append(b, byte(m.Kind))
	b = append(b, m.Grant[:]...)
	b = AppendBlob(b, m.Signed)
	b = binary.BigEndian.AppendUint64(b, m.Limit)
	b = AppendAddr(b, m.Source.Addr())
	b = binary.BigEndian.AppendUint16(b, m.Source.Port())
	return append(b, m.Data...)
}

// ParseOpen reads an Open. Signed and Data share memory with b.
func ParseOpen(b []byte) (Open, error) {
	r := NewReader(b)
	m := Open{Kind: OpenKind(r.Uint8())}
	r.Copy(m.Grant[:])
	m.Signed = r.Blob(MaxGrant)
	m.Limit = r.Uint64()
	m.Source = netip.AddrPortFrom(r.Addr(), r.Uint16())
	m.Data = r.Rest()
	switch {
	case m.Kind < OpenStream || m.Kind > OpenProbe,
		m.Kind == OpenFlow && len(m.Data) > MaxDatagram,
		m.Kind != OpenFlow && len(m.Data) > 0,
		m.Kind != OpenStream && m.Limit > 0,
		m.Limit > MaxOffset,
		!m.Source.Addr().IsValid() && m.Source.Port() != 0:
		r.Reject()
	}
	return finish(m, &r)
}

// MaxOffset is the highest offset of a stream: 2^62 bytes.
const MaxOffset = 1 << 62

// Data carries bytes of a stream from an offset on.
//
//	epoch  uint32   attach epoch of the stream, from 1
//	offset uint64   of the first byte
//	data   rest     1 to MaxData bytes
type Data struct {
	Epoch  uint32
	Offset uint64
	Data   []byte
}

// FrameType implements Frame.
func (Data) FrameType() FrameType { return FrameData }

// AppendTo implements Frame.
func (m Data) AppendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, m.Epoch)
	b = binary.BigEndian.AppendUint64(b, m.Offset)
	return append(b, m.Data...)
}

// PutDataHeader writes the frame header and the fields of a DATA frame that
// carries n bytes to the first DataOverhead bytes of b.
func PutDataHeader(b []byte, stream, epoch uint32, offset uint64, n int) {
	FrameHeader{Type: FrameData, Length: dataHeaderLen + n, Stream: stream}.PutTo(b)
	binary.BigEndian.PutUint32(b[FrameHeaderLen:], epoch)
	binary.BigEndian.PutUint64(b[FrameHeaderLen+4:], offset)
}

// ParseData reads a Data. Its Data shares memory with b.
func ParseData(b []byte) (Data, error) {
	r := NewReader(b)
	m := Data{Epoch: r.Uint32(), Offset: r.Uint64(), Data: r.Rest()}
	if len(m.Data) == 0 || len(m.Data) > MaxData || m.Offset > MaxOffset-uint64(len(m.Data)) {
		r.Reject()
	}
	return finish(m, &r)
}

// Ack says what its sender has written out to its application, and up to which
// offset it will take more: acknowledgement and window credit in one. Neither
// number ever falls within an epoch. FIN counts as one number after the last
// byte: when the application was told of the end, acked is one above the FIN's
// offset. No frame about a half follows the ACK of its FIN.
//
//	epoch uint32
//	acked uint64   bytes written out to the application, and the FIN
//	limit uint64   offset up to which the other side may send
type Ack struct {
	Epoch uint32
	Acked uint64
	Limit uint64
}

// FrameType implements Frame.
func (Ack) FrameType() FrameType { return FrameAck }

// AppendTo implements Frame.
func (m Ack) AppendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, m.Epoch)
	b = binary.BigEndian.AppendUint64(b, m.Acked)
	return binary.BigEndian.AppendUint64(b, m.Limit)
}

// ParseAck reads an Ack.
func ParseAck(b []byte) (Ack, error) {
	r := NewReader(b)
	m := Ack{Epoch: r.Uint32(), Acked: r.Uint64(), Limit: r.Uint64()}
	if m.Acked > m.Limit || m.Limit > MaxOffset {
		r.Reject()
	}
	return finish(m, &r)
}

// Fin says that the sender's half of the stream ends at offset: all its bytes
// are below. The other half goes on.
//
//	epoch  uint32
//	offset uint64
type Fin struct {
	Epoch  uint32
	Offset uint64
}

// FrameType implements Frame.
func (Fin) FrameType() FrameType { return FrameFin }

// AppendTo implements Frame.
func (m Fin) AppendTo(b []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, m.Epoch), m.Offset)
}

// ParseFin reads a Fin.
func ParseFin(b []byte) (Fin, error) {
	r := NewReader(b)
	m := Fin{Epoch: r.Uint32(), Offset: r.Uint64()}
	if m.Offset > MaxOffset {
		r.Reject()
	}
	return finish(m, &r)
}

// Reset ends a stream or a flow at once, in both directions. It is answered by
// a Reset with ReasonNone, unless its receiver has sent one already: when a
// Reset went both ways, or both FINs were acknowledged, the number is free of
// frames for ever, and any further one is stray.
//
//	reason uint16   see Reason
//	text   blob     detail for people, UTF-8, at most 256 bytes
type Reset struct {
	Reason Reason
	Text   string
}

// FrameType implements Frame.
func (Reset) FrameType() FrameType { return FrameReset }

// AppendTo implements Frame.
func (m Reset) AppendTo(b []byte) []byte {
	return AppendText(binary.BigEndian.AppendUint16(b, uint16(m.Reason)), m.Text, MaxText)
}

// ParseReset reads a Reset.
func ParseReset(b []byte) (Reset, error) {
	r := NewReader(b)
	return finish(Reset{Reason: Reason(r.Uint16()), Text: r.Text(MaxText)}, &r)
}

// Datagram is one datagram of a flow, whole: boundaries and sizes are kept. A
// datagram of 0 bytes is one.
//
//	data rest   0 to 65,507 bytes
type Datagram struct{ Data []byte }

// MaxDatagram is the longest payload of UDP over IPv4 (RFC 768, RFC 791).
const MaxDatagram = 65507

// FrameType implements Frame.
func (Datagram) FrameType() FrameType { return FrameDatagram }

// AppendTo implements Frame.
func (m Datagram) AppendTo(b []byte) []byte { return append(b, m.Data...) }

// ParseDatagram reads a Datagram. Its Data shares memory with b.
func ParseDatagram(b []byte) (Datagram, error) {
	if len(b) > MaxDatagram {
		return Datagram{}, ErrMalformed
	}
	return Datagram{Data: b}, nil
}

// CarrierKind is what a carrier runs over.
type CarrierKind uint8

// The kinds of carrier.
const (
	CarrierTCP  CarrierKind = 1 // TLS 1.3 over TCP
	CarrierQUIC CarrierKind = 2 // QUIC over UDP (RFC 9000)
)

func (k CarrierKind) String() string {
	switch k {
	case CarrierTCP:
		return "TLS"
	case CarrierQUIC:
		return "QUIC"
	}
	return fmt.Sprintf("carrier kind %d", uint8(k))
}

// AddCarrier tells the TLS server that the TLS client dials one more carrier
// of the session whose carrier this frame came on; the receiver dials its own
// leg for it.
//
//	connection uint16   number of the new carrier, one above the last that was announced in the session
//	kind       uint8    1 TLS, 2 QUIC
type AddCarrier struct {
	Connection uint16
	Kind       CarrierKind
}

// FrameType implements Frame.
func (AddCarrier) FrameType() FrameType { return FrameCarrier }

// AppendTo implements Frame.
func (m AddCarrier) AppendTo(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, m.Connection), byte(m.Kind))
}

// ParseAddCarrier reads an AddCarrier.
func ParseAddCarrier(b []byte) (AddCarrier, error) {
	r := NewReader(b)
	m := AddCarrier{Connection: r.Uint16(), Kind: CarrierKind(r.Uint8())}
	if m.Kind != CarrierTCP && m.Kind != CarrierQUIC {
		r.Reject()
	}
	return finish(m, &r)
}

// Resume moves a stream to the carrier it is sent on. Its opener sends it with
// an epoch above all before; the other side answers it with the same epoch, on the
// same carrier. From then on frames of an older epoch mean nothing, and
// each side sends on from what the other has received. An ACK of the new epoch
// follows it at once. A side that did not open the stream asks for the move with an
// ACK on the carrier where it wants the stream to be.
//
//	epoch    uint32   from 2
//	received uint64   bytes received in order, and the FIN (which counts one)
type Resume struct {
	Epoch    uint32
	Received uint64
}

// FrameType implements Frame.
func (Resume) FrameType() FrameType { return FrameResume }

// AppendTo implements Frame.
func (m Resume) AppendTo(b []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, m.Epoch), m.Received)
}

// ParseResume reads a Resume.
func ParseResume(b []byte) (Resume, error) {
	r := NewReader(b)
	m := Resume{Epoch: r.Uint32(), Received: r.Uint64()}
	if m.Epoch < 2 || m.Received > MaxOffset {
		r.Reject()
	}
	return finish(m, &r)
}

// MaxPad is the most bytes in a PAD frame.
const MaxPad = 4096

// Pad carries nothing: its bytes, all zero, fill a packet, so that a PING beside
// it passes only where packets of full size do.
//
//	zeros rest   0 to 4,096 bytes
type Pad struct{ Length int }

// FrameType implements Frame.
func (Pad) FrameType() FrameType { return FramePad }

// AppendTo implements Frame.
func (m Pad) AppendTo(b []byte) []byte { return append(b, make([]byte, m.Length)...) }

// ParsePad reads a Pad.
func ParsePad(b []byte) (Pad, error) {
	if len(b) > MaxPad {
		return Pad{}, ErrMalformed
	}
	for _, v := range b {
		if v != 0 {
			return Pad{}, ErrMalformed
		}
	}
	return Pad{Length: len(b)}, nil
}

// TunnelClose is the last frame of a tunnel: its sender resets what is open
// and goes. With ReasonIdle it is a question, asked by a portal that has
// nothing open and opens nothing any more: the peer answers it with the same
// if it has nothing open either, and both go; else it goes on.
//
//	reason uint16
//	text   blob     UTF-8, at most 256 bytes
type TunnelClose struct {
	Reason Reason
	Text   string
}

// FrameType implements Frame.
func (TunnelClose) FrameType() FrameType { return FrameClose }

// AppendTo implements Frame.
func (m TunnelClose) AppendTo(b []byte) []byte {
	return AppendText(binary.BigEndian.AppendUint16(b, uint16(m.Reason)), m.Text, MaxText)
}

// ParseTunnelClose reads a TunnelClose.
func ParseTunnelClose(b []byte) (TunnelClose, error) {
	r := NewReader(b)
	return finish(TunnelClose{Reason: Reason(r.Uint16()), Text: r.Text(MaxText)}, &r)
}

// finish returns m if r was read whole and well, else the zero message.
func finish[M any](m M, r *Reader) (M, error) {
	if err := r.Done(); err != nil {
		var zero M
		return zero, err
	}
	return m, nil
}

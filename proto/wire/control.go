package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// ControlHeaderLen is the length of a control message's header in bytes.
	ControlHeaderLen = 6
	// MaxControl is the longest body of one; none is empty.
	MaxControl = 16384
)

// Type is the type of a control message. Append only.
type Type uint16

// The types of control messages.
const (
	TypeHello               Type = 1  // portal or relay to server, first
	TypeWelcome             Type = 2  // server, answers Hello
	TypePing                Type = 3  // both ways
	TypePong                Type = 4  // both ways
	TypeGoodbye             Type = 5  // both ways, last
	TypeRenew               Type = 6  // portal or relay to server
	TypeRevocationsHeld     Type = 7  // portal or relay to server
	TypeRenewed             Type = 8  // server to portal or relay
	TypeRenewRefused        Type = 9  // server to portal or relay
	TypeAuthorities         Type = 10 // server to portal or relay; also to who joins
	TypeRevocation          Type = 11 // server to portal or relay
	TypeRevocationsComplete Type = 12 // server to portal or relay
	TypeOpenSession         Type = 16 // portal to server
	TypeSessionDone         Type = 17 // portal to server
	TypeRelayTimes          Type = 18 // portal to server
	TypeSession             Type = 32 // server to portal
	TypeRefused             Type = 33 // server to portal
	TypeSessionEnded        Type = 34 // server to portal
	TypePutGrant            Type = 35 // server to portal
	TypeRemoveGrant         Type = 36 // server to portal
	TypeGrantsComplete      Type = 37 // server to portal
	TypePeerState           Type = 38 // server to portal
	TypeRelayState          Type = 39 // server to portal
	TypeServers             Type = 40 // server to portal
	TypeTicket              Type = 41 // server to portal
	TypeRelays              Type = 42 // server to portal
	TypeRelayReady          Type = 64 // relay to server
	TypeRelayLoad           Type = 65 // relay to server
	TypeSessionReady        Type = 66 // relay to server
	TypeSessionRefused      Type = 67 // relay to server
	TypeSessionOver         Type = 68 // relay to server
	TypeRelayDraining       Type = 69 // relay to server
	TypeCreateSession       Type = 80 // server to relay
	TypeEndSession          Type = 81 // server to relay
	TypeOtherRelays         Type = 82 // server to relay
	TypeTicketKeys          Type = 83 // server to relay
	TypeEnrol               Type = 96 // who joins to server
	TypeEnrolWait           Type = 97 // server to who joins
	TypeEnrolled            Type = 98 // server to who joins, last
	TypeEnrolRefused        Type = 99 // server to who joins, last
)

// Message is a control message.
type Message interface {
	Type() Type
	AppendTo(b []byte) []byte
}

// The sets of messages by direction: what a role may send, and so what the
// other may receive.
type (
	// FromPortal is a message a portal sends to the server.
	FromPortal interface {
		Message
		fromPortal()
	}
	// ToPortal is a message the server sends to a portal.
	ToPortal interface {
		Message
		toPortal()
	}
	// FromRelay is a message a relay sends to the server.
	FromRelay interface {
		Message
		fromRelay()
	}
	// ToRelay is a message the server sends to a relay.
	ToRelay interface {
		Message
		toRelay()
	}
	// FromJoiner is a message of who enrols.
	FromJoiner interface {
		Message
		fromJoiner()
	}
	// ToJoiner is a message the server sends to who enrols.
	ToJoiner interface {
		Message
		toJoiner()
	}
)

// ErrUnknownType is returned for a message of a newer version: skip it.
var ErrUnknownType = errors.New("unknown message type")

// ErrDirection is returned for a message that its receiver only ever sends.
var ErrDirection = errors.New("message in the wrong direction")

// AppendMessage appends a whole message, header and body.
func AppendMessage(b []byte, m Message) []byte {
	at := len(b)
	b = binary.BigEndian.AppendUint16(b, uint16(m.Type()))
	b = m.AppendTo(append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[at+2:], uint32(len(b)-at-ControlHeaderLen))
	return b
}

// ParseControlHeader reads a header from the first ControlHeaderLen bytes of b
// and refuses a length of 0 or above MaxControl, so that a caller may allocate
// by it.
func ParseControlHeader(b []byte) (Type, int, error) {
	t, n := Type(binary.BigEndian.Uint16(b)), binary.BigEndian.Uint32(b[2:])
	if n == 0 || n > MaxControl {
		return 0, 0, fmt.Errorf("%w: control message of type %d with %d bytes, 1 to %d are allowed", ErrMalformed, t, n, MaxControl)
	}
	return t, int(n), nil
}

// parser reads the body of one type.
type parser func([]byte) (Message, error)

func parse[M Message](f func([]byte) (M, error)) parser {
	return func(b []byte) (Message, error) {
		m, err := f(b)
		if err != nil {
			return nil, fmt.Errorf("message of type %d: %w", m.Type(), err)
		}
		return m, nil
	}
}

// parsers holds every type that exists.
var parsers = map[Type]parser{
	TypeHello:               parse(ParseHello),
	TypeWelcome:             parse(ParseWelcome),
	TypePing:                parse(ParsePing),
	TypePong:                parse(ParsePong),
	TypeGoodbye:             parse(ParseGoodbye),
	TypeOpenSession:         parse(ParseOpenSession),
	TypeSessionDone:         parse(ParseSessionDone),
	TypeSession:             parse(ParseSession),
	TypeRefused:             parse(ParseRefused),
	TypeSessionEnded:        parse(ParseSessionEnded),
	TypePutGrant:            parse(ParsePutGrant),
	TypeRemoveGrant:         parse(ParseRemoveGrant),
	TypeGrantsComplete:      parse(ParseGrantsComplete),
	TypePeerState:           parse(ParsePeerState),
	TypeRelayState:          parse(ParseRelayState),
	TypeRelayTimes:          parse(ParseRelayTimes),
	TypeServers:             parse(ParseServers),
	TypeTicket:              parse(ParseTicket),
	TypeRelays:              parse(ParseRelays),
	TypeRelayReady:          parse(ParseRelayReady),
	TypeRelayLoad:           parse(ParseRelayLoad),
	TypeSessionReady:        parse(ParseSessionReady),
	TypeSessionRefused:      parse(ParseSessionRefused),
	TypeSessionOver:         parse(ParseSessionOver),
	TypeRelayDraining:       parse(ParseRelayDraining),
	TypeCreateSession:       parse(ParseCreateSession),
	TypeEndSession:          parse(ParseEndSession),
	TypeOtherRelays:         parse(ParseOtherRelays),
	TypeTicketKeys:          parse(ParseTicketKeys),
	TypeRenew:               parse(ParseRenew),
	TypeRevocationsHeld:     parse(ParseRevocationsHeld),
	TypeRenewed:             parse(ParseRenewed),
	TypeRenewRefused:        parse(ParseRenewRefused),
	TypeAuthorities:         parse(ParseAuthorities),
	TypeRevocation:          parse(ParseRevocation),
	TypeRevocationsComplete: parse(ParseRevocationsComplete),
	TypeEnrol:               parse(ParseEnrol),
	TypeEnrolWait:           parse(ParseEnrolWait),
	TypeEnrolled:            parse(ParseEnrolled),
	TypeEnrolRefused:        parse(ParseEnrolRefused),
}

func parseAs[M Message](t Type, body []byte) (M, error) {
	var zero M
	p, ok := parsers[t]
	if !ok {
		return zero, fmt.Errorf("%w %d", ErrUnknownType, t)
	}
	m, err := p(body)
	if err != nil {
		return zero, err
	}
	of, ok := m.(M)
	if !ok {
		return zero, fmt.Errorf("%w: type %d", ErrDirection, t)
	}
	return of, nil
}

// ParseFromPortal reads what a server received from a portal. ErrUnknownType
// is no fault of the peer. The message shares no memory with body.
func ParseFromPortal(t Type, body []byte) (FromPortal, error) { return parseAs[FromPortal](t, body) }

// ParseToPortal reads what a portal received from the server.
func ParseToPortal(t Type, body []byte) (ToPortal, error) { return parseAs[ToPortal](t, body) }

// ParseFromRelay reads what a server received from a relay.
func ParseFromRelay(t Type, body []byte) (FromRelay, error) { return parseAs[FromRelay](t, body) }

// ParseToRelay reads what a relay received from the server.
func ParseToRelay(t Type, body []byte) (ToRelay, error) { return parseAs[ToRelay](t, body) }

// ParseFromJoiner reads what a server received from who enrols.
func ParseFromJoiner(t Type, body []byte) (FromJoiner, error) { return parseAs[FromJoiner](t, body) }

// ParseToJoiner reads what who enrols received from the server.
func ParseToJoiner(t Type, body []byte) (ToJoiner, error) { return parseAs[ToJoiner](t, body) }

package wire

import "fmt"

// MaxText is the longest text for people in a message, in bytes.
const MaxText = 256

// Reason says why something was refused or ended. It is a code on the wire,
// not an error: wrap it as what the peer said or what we say. Logs, audit
// lines, counters and "explain" use the same words. Append only.
type Reason uint16

// The reasons. A number not in this list is a reason of a newer version and
// prints as its number.
const (
	ReasonNone            Reason = 0
	ReasonShutdown        Reason = 1  // the sender is stopping
	ReasonProtocol        Reason = 2  // the peer broke the protocol
	ReasonInternal        Reason = 3  // the sender failed; its log says how
	ReasonBusy            Reason = 4  // a quota or limit is reached; try again later
	ReasonTimeout         Reason = 5  // nothing came in time
	ReasonVersion         Reason = 6  // no common protocol version
	ReasonReplaced        Reason = 7  // the same identity connected anew
	ReasonIdle            Reason = 8  // nothing was carried for the idle time
	ReasonLifetime        Reason = 9  // the lifetime is over
	ReasonWaiting         Reason = 10 // an operator has to sign first
	ReasonNotGranted      Reason = 16 // no valid grant allows it
	ReasonGrantExpired    Reason = 17 // the grant's until or freshness is over
	ReasonGrantRemoved    Reason = 18 // the policy no longer has it
	ReasonBadSignature    Reason = 19 // a signature of the grant is wrong
	ReasonWrongPeer       Reason = 20 // the peer proven is not the one named
	ReasonLocalList       Reason = 21 // the portal's own list forbids it
	ReasonForbidden       Reason = 22 // the target's address is never dialled
	ReasonRevoked         Reason = 23 // the certificate was revoked
	ReasonOutsideHours    Reason = 24 // the grant has hours, and it is none of them
	ReasonLimit           Reason = 25 // a limit of the grant is reached: streams, or bytes of the month
	ReasonClientForbidden Reason = 26 // the grant does not name the client's address
	ReasonNotDirect       Reason = 27 // the grant allows no path that there is: direct ones only, or never
	ReasonToken           Reason = 28 // no join token that is good: unknown, used, over, or of another name
	ReasonRejected        Reason = 29 // an operator has rejected it
	ReasonPeerOffline     Reason = 32 // the other portal is not connected
	ReasonNoRelay         Reason = 33 // no relay is connected
	ReasonRelayRefused    Reason = 34 // the relay refused the session
	ReasonCarrierLost     Reason = 35 // the connection under the stream broke
	ReasonServerGone      Reason = 36 // the server cannot be reached
	ReasonTargetRefused   Reason = 48 // the target refused the connection
	ReasonTargetTimeout   Reason = 49 // the target did not answer
	ReasonTargetUnknown   Reason = 50 // the target's name does not resolve
	ReasonTargetReset     Reason = 51 // an application reset its connection
	ReasonTargetUnreached Reason = 52 // no way to the target
	ReasonTargetLocal     Reason = 53 // the exit's own system refused the dial (descriptors, ports, rights)
)

// Passing reports whether a session that ended for this reason says nothing about
// what is allowed: its relay or its way went, and the tunnel goes on over another.
func (r Reason) Passing() bool {
	switch r {
	case ReasonShutdown, ReasonReplaced, ReasonIdle, ReasonLifetime, ReasonCarrierLost, ReasonRelayRefused, ReasonTimeout:
		return true
	}
	return false
}

func (r Reason) String() string {
	switch r {
	case ReasonNone:
		return "no reason"
	case ReasonShutdown:
		return "shutting down"
	case ReasonProtocol:
		return "protocol error"
	case ReasonInternal:
		return "internal error"
	case ReasonBusy:
		return "busy"
	case ReasonTimeout:
		return "timed out"
	case ReasonVersion:
		return "no common version"
	case ReasonReplaced:
		return "replaced by a newer connection"
	case ReasonIdle:
		return "idle"
	case ReasonLifetime:
		return "lifetime over"
	case ReasonWaiting:
		return "waiting for an operator"
	case ReasonNotGranted:
		return "not granted"
	case ReasonGrantExpired:
		return "grant expired"
	case ReasonGrantRemoved:
		return "grant removed"
	case ReasonBadSignature:
		return "bad signature"
	case ReasonWrongPeer:
		return "wrong peer"
	case ReasonLocalList:
		return "forbidden by the portal's own list"
	case ReasonForbidden:
		return "forbidden address"
	case ReasonRevoked:
		return "revoked"
	case ReasonOutsideHours:
		return "outside the grant's hours"
	case ReasonLimit:
		return "limit of the grant reached"
	case ReasonClientForbidden:
		return "client address not granted"
	case ReasonNotDirect:
		return "no path of the kind granted"
	case ReasonToken:
		return "no valid join token"
	case ReasonRejected:
		return "rejected by an operator"
	case ReasonPeerOffline:
		return "portal offline"
	case ReasonNoRelay:
		return "no relay connected"
	case ReasonRelayRefused:
		return "relay refused"
	case ReasonCarrierLost:
		return "carrier lost"
	case ReasonServerGone:
		return "server unreachable"
	case ReasonTargetRefused:
		return "target refused"
	case ReasonTargetTimeout:
		return "target timed out"
	case ReasonTargetUnknown:
		return "target name unknown"
	case ReasonTargetReset:
		return "connection reset"
	case ReasonTargetUnreached:
		return "target unreachable"
	case ReasonTargetLocal:
		return "exit portal could not dial"
	}
	return fmt.Sprintf("reason %d", uint16(r))
}

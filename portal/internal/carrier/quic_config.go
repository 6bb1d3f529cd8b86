package carrier

import (
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// maxStreams is how many QUIC streams a peer may have open: those of a full
	// tunnel, the control stream, and some that have ended on one side only.
	maxStreams = 4096 + 512
	// quicIdle is when QUIC gives up a connection on which nothing came. The watch
	// is quicker wherever there is something to say, and asks on a carrier that is
	// idle; its longest pause must be shorter.
	quicIdle = 15 * time.Minute
)

// QUICConfig returns the configuration of the QUIC connections that OverQUIC
// takes.
//
// A stream's window is larger than the tunnel's own (stream.MaxWindow), so that
// it is always the tunnel that holds a stream back: the carrier reads whatever
// comes. The connection's fills 1 Gbit/s at 100 ms (12.5 MB) with room for what waits
// behind a lost packet; that much a peer can make this portal keep.
func QUICConfig() *quic.Config {
	return &quic.Config{
		InitialPacketSize:              1200, // passes where packets of 1,280 bytes do, with IPv6 and what a tunnel adds
		MaxIdleTimeout:                 quicIdle,
		InitialStreamReceiveWindow:     1 << 20,
		MaxStreamReceiveWindow:         18 << 20,
		InitialConnectionReceiveWindow: 2 << 20,
		MaxConnectionReceiveWindow:     24 << 20,
		MaxIncomingStreams:             maxStreams,
		MaxIncomingUniStreams:          -1,
		EnableDatagrams:                true,
	}
}

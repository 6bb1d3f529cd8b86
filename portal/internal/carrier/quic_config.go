package carrier

import (
	"os"
	"sync"
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

// hush keeps quic-go from writing to the standard error output that the kernel
// has not given a socket as large a buffer as it wants. It can be told so by an
// environment variable only; what the user has set there stands.
var hush = sync.OnceFunc(func() {
	const name = "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING"
	if _, set := os.LookupEnv(name); !set {
		_ = os.Setenv(name, "true")
	}
})

// QUICConfig returns the configuration of the QUIC connections that OverQUIC
// takes. It must be called before the first QUIC transport is made.
//
// A stream's window is larger than the tunnel's own (stream.MaxWindow), so that
// it is always the tunnel that holds a stream back: the carrier reads whatever
// comes. The connection's fills 1 Gbit/s at 100 ms (12.5 MB) with room for what waits
// behind a lost packet; that much a peer can make this portal keep.
func QUICConfig() *quic.Config {
	hush()
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

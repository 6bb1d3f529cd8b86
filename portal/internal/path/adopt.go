package path

import (
	"context"
	"net"
	"syscall"
)

// directWays stands for all ways from portal to portal where memory names a relay; no relay
// has a space in its name.
const directWays = "direct ways"

// Adopt has a TCP connection with another portal closed when this machine loses its
// local address, and find soon that its path is over. Until proven is called it is watched
// for full segments that get lost; then it is closed, when stuck has returned.
func (f *Finder) Adopt(conn *net.TCPConn, stuck func()) (proven func()) {
	if raw, err := conn.SyscallConn(); err == nil {
		// It is only slower without.
		_ = retrySoon(raw, maxRetry)
	}
	f.follow(conn)
	small := f.memory.small(directWays)
	ctx, stop := context.WithTimeout(context.Background(), handshakeTime)
	if !small {
		f.tasks.Go(func() { inspect(ctx, conn, stuck) })
	}
	return func() {
		stop()
		if small && f.memory.smallWorked(directWays) {
			f.Log.Info("full segments get lost on direct ways; using small ones for a day")
		}
	}
}

// Stuck has the next TCP connections with other portals, in this network, use segments that
// pass nearly everywhere: full ones seem to get lost on one.
func (f *Finder) Stuck() {
	if f.memory.suspect(directWays) {
		f.Log.Info("full segments seem to get lost on a direct way; the next connections use small ones")
	}
}

// Segments bounds the segments of TCP connections with other portals that are dialled from a
// socket, or come in at one that listens, by what is known of this network.
func (f *Finder) Segments(socket syscall.RawConn) error {
	most := 0
	if f.memory.small(directWays) {
		most = smallSegment
	}
	return limitSegments(socket, most)
}

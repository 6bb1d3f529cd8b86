package path

import "net"

// Adopt has a TCP connection with another portal closed when this machine loses its
// local address, and find soon that its path is over.
func (f *Finder) Adopt(conn *net.TCPConn) {
	if raw, err := conn.SyscallConn(); err == nil {
		// It is only slower without.
		_ = retrySoon(raw, maxRetry)
	}
	f.follow(conn)
}

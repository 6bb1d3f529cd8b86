package vanish

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

const supported = true

// look asks the system; open is false for a connection that is closed.
func look(conn *net.TCPConn) (s state, open bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return state{}, false
	}
	var info *unix.TCPInfo
	var asked error
	err = raw.Control(func(fd uintptr) { info, asked = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err != nil || asked != nil {
		return state{}, false
	}
	return state{
		waiting: info.Unacked > 0 && info.Retransmits > 0 || info.Probes > 0,
		heard:   time.Duration(info.Last_ack_recv) * time.Millisecond,
	}, true
}

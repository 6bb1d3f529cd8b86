package splice

import (
	"net"

	"github.com/netport/netport/proto/handover"
)

// takeOver serves the connection that a caller hands over as if the shared port had accepted
// it.
func (r *Relay) takeOver(caller net.Conn) {
	c, head, err := handover.Take(caller)
	if err == nil {
		if err = tune(c); err != nil {
			c.Close()
		}
	}
	if err != nil {
		r.seldom.Warn("connection not taken over", "error", err)
		return
	}
	r.taken.Add(1)
	r.serve(c, head, 0)
}

// tune gives a connection that another daemon has accepted what Listen gives to those of
// its ports.
func tune(c *net.TCPConn) error {
	if err := c.SetKeepAliveConfig(keepAlive); err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return retrySoon("", "", raw)
}

package daemon

import (
	"fmt"
	"net"

	"github.com/netport/netport/proto/handover"
	"github.com/netport/netport/proto/local"

	"github.com/netport/netport/relay/internal/config"
)

// share opens the shared ports that the configuration asks for, or the socket at which
// another program that has the port hands over.
func (d *Daemon) share() (shared []*net.TCPListener, handed *local.Socket, err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, l := range shared {
			l.Close()
		}
		if handed != nil {
			handed.Close()
		}
	}()
	if port := d.cfg.SharedTCP; d.cfg.TakeOver != "" {
		if handed, err = d.takeOver(); err != nil {
			return shared, handed, fmt.Errorf("take over the connections of port %d: %w", port, err)
		}
	} else if port != 0 {
		if shared, err = d.splice.Listen(port); err != nil {
			return shared, handed, fmt.Errorf("open the shared TCP port %d: %w%s", port, err, portHint(port, err))
		}
	}
	if port := d.cfg.SharedUDP; port != 0 {
		if _, err = d.udp.Share(port); err != nil {
			return shared, handed, fmt.Errorf("open the shared UDP port %d: %w%s", port, err, portHint(port, err))
		}
	}
	return shared, handed, nil
}

// takeOver opens the socket at which another program hands over.
func (d *Daemon) takeOver() (*local.Socket, error) {
	from, err := givers(d.cfg)
	if err != nil {
		return nil, err
	}
	return local.ListenPackets(d.cfg.TakeOver, from...)
}

// givers are the users who may hand over, beside root and our own.
func givers(cfg config.Config) ([]int, error) {
	if cfg.TakeOverFrom == "" {
		return nil, nil
	}
	id, err := handover.User(cfg.TakeOverFrom)
	if err != nil {
		return nil, fmt.Errorf("take_over_from: %w", err)
	}
	return []int{id}, nil
}

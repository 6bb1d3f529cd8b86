package await

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/netport/netport/lab/topo"
)

const greeting = "welcome"

// Greet has a service greet whoever comes, until stop is called. The listener may be used again then.
func Greet(service net.Listener) (stop func()) {
	ln, done := service.(*net.TCPListener), make(chan struct{})
	ln.SetDeadline(time.Time{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, greeting)
			conn.Close()
		}
	}()
	return func() {
		ln.SetDeadline(time.Unix(1, 0))
		<-done
	}
}

// Greeted reports why a client on a host does not reach a service that greets.
func Greeted(ctx context.Context, host *topo.Host, at netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	conn, err := host.DialContext(ctx, "tcp", at)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	got, err := io.ReadAll(conn)
	if err == nil && string(got) != greeting {
		err = fmt.Errorf("the client got %q", got)
	}
	return err
}

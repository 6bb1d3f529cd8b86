package control

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

func TestPortsOfOneHostGoTogether(t *testing.T) {
	all := []string{"a:443", "b:443", "a:80", "c:443", "c:80", "b:8443"}
	got := byHost(all, []string{"a:443", "a:80", "b:443"})
	want := [][]string{{"a:443", "a:80"}, {"b:443"}, {"c:443", "c:80"}, {"b:8443"}}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A port that swallows what is sent holds nobody up for as long as a greeting may take: the next is dialled
// meanwhile, and the first of them all is the one that is dialled first the next time.
func TestNextPortIsDialledWhileOneIsSilent(t *testing.T) {
	r := newRoles(t)
	silent := listen(t, func(conn net.Conn) {
		buf := make([]byte, 4096)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	})
	good := listen(t, func(conn net.Conn) {
		a, err := Accept(context.Background(), conn, r.serverTLS())
		if err != nil {
			t.Error(err)
			return
		}
		c := WelcomePortal(a, wire.Welcome{Version: wire.ControlVersion}, discard)
		c.Close(wire.ReasonShutdown, "seen")
		c.Run(context.Background(), nothing[wire.FromPortal](t))
	})
	d := r.dialer()
	var failed []string
	d.Failed = func(address string, _ error) { failed = append(failed, address) }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var took []time.Duration
	began := time.Now()
	err := d.Keep(ctx, []string{silent, good}, func(context.Context, *portalConn, wire.Welcome) error {
		took = append(took, time.Since(began))
		if began = time.Now(); len(took) == 2 {
			cancel()
		}
		return nil
	})
	if err != nil || len(took) != 2 {
		t.Fatalf("connected %d times: %v", len(took), err)
	}
	if took[0] > greetTime+2*time.Second || took[1] > greetTime {
		t.Errorf("it took %v, and %v the second time", took[0], took[1])
	}
	if !slices.Equal(failed, []string{silent}) {
		t.Errorf("failed: %q", failed)
	}
}

// listen serves connections on loopback until the test ends.
func listen(t *testing.T, each func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				each(conn)
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

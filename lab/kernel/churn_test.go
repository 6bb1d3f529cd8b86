package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/leg/legtest"
)

// G9: sessions that come and go, each used over UDP and over TCP, leave nothing: no descriptor, no goroutine, no entry in the
// kernel's tables. With -full it is 10,000 of them; the rate is in the log.
func TestSessionsThatComeAndGoLeaveNothing(t *testing.T) {
	w := newWorld(t, plan{config: []daemon.Option{daemon.Measured()}})
	sockets := func() [2]*net.UDPConn { return [2]*net.UDPConn{w.sides[0].ListenUDP(0), w.sides[1].ListenUDP(0)} }
	if err := w.useOnce(sockets(), 0); err != nil { // what is made once is there before
		t.Fatal(err)
	}
	w.waitNoSession()
	before, goroutines := heldBy(t, w.relay), w.relay.Goroutines()
	sessions, workers := 500, 16
	if *full {
		sessions = 10_000
	}
	numbers := make(chan int)
	var running sync.WaitGroup
	began := time.Now()
	for range workers {
		own := sockets()
		running.Go(func() {
			for n := range numbers {
				if err := w.useOnce(own, n); err != nil {
					t.Errorf("session %d: %v", n, err)
				}
			}
		})
	}
	for n := range sessions {
		numbers <- n + 1
	}
	close(numbers)
	running.Wait()
	if t.Failed() {
		s := w.status()
		t.Logf("the relay has dropped %v, and in the kernel %v", s.Drops, s.KernelDrops)
	}
	w.waitNoSession()
	took := time.Since(began)
	t.Logf("%d sessions opened, used and ended in %v: %.0f a second", sessions, took.Round(time.Millisecond), float64(sessions)/took.Seconds())
	await.Until(t, "as before", func() error {
		if now := heldBy(t, w.relay); now != before {
			return fmt.Errorf("the relay holds %+v, and held %+v", now, before)
		}
		if now := w.relay.Goroutines(); now > goroutines+10 || now < goroutines-10 {
			return fmt.Errorf("the relay has %d goroutines, and had %d", now, goroutines)
		}
		return nil
	})
}

// useOnce opens a session, carries a datagram and a connection's line through it, both there and back, and ends it.
func (w *world) useOnce(sockets [2]*net.UDPConn, number int) error {
	terms := daemon.Terms{Portals: [2]string{fmt.Sprint("opener-", number%100), "peer"}}
	for i, s := range w.sides {
		terms.Sources[i] = s.source(4)
	}
	s, err := w.broker.TryOpen(w.relay, terms)
	if err != nil {
		return err
	}
	defer w.broker.Close(w.relay, s)
	ctx, cancel := context.WithTimeout(w.t.Context(), await.Patience)
	defer cancel()
	at := w.relayAt(s.Ready.UDP)
	for i, socket := range sockets {
		if _, err := legtest.Bind(ctx, leg.NewBinder(leg.ID{Session: s.ID, Leg: uint8(i)}, s.Secrets[i], 1), socket, at); err != nil {
			return err
		}
	}
	ends, err := w.dialBoth(s)
	if err != nil {
		return err
	}
	for _, end := range ends {
		defer end.Close()
	}
	line := fmt.Sprintf("session %6d", number)
	for i := range ends {
		if _, err := sockets[i].WriteToUDPAddrPort([]byte(line), at); err != nil {
			return err
		}
		if err := hear(sockets[1-i], line, at); err != nil {
			return fmt.Errorf("datagram from leg %d: %w", i, err)
		}
		ends[1-i].SetDeadline(time.Now().Add(await.Patience))
		got := make([]byte, len(line))
		if _, err := io.WriteString(ends[i], line); err != nil {
			return err
		}
		if _, err := io.ReadFull(ends[1-i], got); err != nil || string(got) != line {
			return fmt.Errorf("connection from leg %d: got %q, %w", i, got, err)
		}
	}
	return nil
}

// dialBoth opens a connection of a session. At this rate ports come round so soon that a host may dial one from where it did
// a moment ago, for another session; the relay does not let that in, and the next number is dialled, as portals do.
func (w *world) dialBoth(s daemon.Session) (ends [2]net.Conn, err error) {
	for n := range 3 {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		defer cancel()
		var errs [2]error
		var dialling sync.WaitGroup
		for i, side := range w.sides {
			dialling.Go(func() { ends[i], errs[i] = side.DialContext(ctx, "tcp", w.relayAt(s.Ready.Packet[i]+uint16(n))) })
		}
		dialling.Wait()
		if err = errors.Join(errs[0], errs[1]); err == nil {
			return ends, nil
		}
		for _, end := range ends {
			if end != nil {
				end.Close()
			}
		}
	}
	return ends, err
}

// hear waits for a datagram. What else comes belongs to a bind that is over.
func hear(socket *net.UDPConn, want string, from netip.AddrPort) error {
	if err := socket.SetReadDeadline(time.Now().Add(await.Patience)); err != nil {
		return err
	}
	for b := make([]byte, 1500); ; {
		n, at, err := socket.ReadFromUDPAddrPort(b)
		if err != nil {
			return err
		}
		if netip.AddrPortFrom(at.Addr().Unmap(), at.Port()) == from && string(b[:n]) == want {
			return nil
		}
	}
}

// waitNoSession waits until the relay has none.
func (w *world) waitNoSession() {
	w.t.Helper()
	await.Until(w.t, "without a session", func() error {
		if n := len(w.status().Sessions); n > 0 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
}

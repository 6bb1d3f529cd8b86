package leg

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestBinderRepeatsEverSlowerAndTheSameBytes(t *testing.T) {
	b, now := NewBinder(testID, testSecret, 0), time.Unix(1_800_000_000, 0)
	want := []time.Duration{200, 400, 800, 1600, 2000, 2000}
	first, _ := b.Packet(now)
	for i, w := range want {
		if i > 0 {
			packet, _ := b.Packet(now)
			if string(packet) != string(first) {
				t.Fatalf("repetition %d differs from the first", i)
			}
		}
		packet, again := b.Packet(now)
		if packet != nil || again.Sub(now) != w*time.Millisecond {
			t.Fatalf("after request %d: sends %d bytes, waits %v, want %v", i, len(packet), again.Sub(now), w*time.Millisecond)
		}
		now = again
	}
}

func TestBinderStartsAgainWhenItsSecondRequestStaysUnanswered(t *testing.T) {
	r, b := newRelay(), NewBinder(testID, testSecret, 41)
	first, _ := b.Packet(r.now)
	b.Handle(r.want(t, "first request", Challenge, first, home))
	for range maxRepeats + 1 {
		packet, again := b.Packet(r.now)
		if q, err := ParseRequest(packet); err != nil || q.nonce == nil || q.Counter != 42 {
			t.Fatalf("request %+v, %v; want the second of bind 42", q, err)
		}
		r.now = again
	}
	packet, _ := b.Packet(r.now)
	if q, err := ParseRequest(packet); err != nil || q.nonce != nil || q.Counter != 43 {
		t.Fatalf("request %+v, %v; want the first of bind 43", q, err)
	}
}

func TestBinderIgnoresWhatIsNoAnswerToIt(t *testing.T) {
	r, b := newRelay(), NewBinder(testID, testSecret, 0)
	first, _ := b.Packet(r.now)
	challenge := r.want(t, "first request", Challenge, first, home)

	elsewhere := NewBinder(testID, testSecret, 0)
	if elsewhere.Handle(challenge) {
		t.Error("an answer to another transaction is taken")
	}
	forged := append([]byte(nil), challenge...)
	forged[len(forged)-1] ^= 1
	if b.Handle(forged) || b.Handle(nil) || b.Handle([]byte("data")) || b.Handle(first) {
		t.Error("a forged answer is taken")
	}
	if !b.Handle(challenge) {
		t.Error("the true answer is refused")
	}
	if b.Handle(challenge) {
		t.Error("the challenge is taken twice")
	}
}

func TestExchangeBindsOverALossySocket(t *testing.T) {
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	server, client := listen(), listen()
	done := make(chan struct{})
	go func() {
		defer close(done)
		gate, last, buf := NewGate(), Binding{}, make([]byte, 2048)
		for i := 0; ; i++ {
			n, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			q, err := ParseRequest(buf[:n])
			if err != nil || i == 0 { // the first packet is lost
				continue
			}
			_, answer := gate.Judge(time.Now(), q, from, testSecret, last)
			server.WriteToUDPAddrPort(answer, from)
		}
	}()
	want := client.LocalAddr().(*net.UDPAddr).AddrPort()
	got, err := NewBinder(testID, testSecret, 0).Exchange(t.Context(), client, server.LocalAddr().(*net.UDPAddr).AddrPort())
	if err != nil || got != want {
		t.Errorf("mapped %v, %v; want %v", got, err, want)
	}
	server.Close()
	<-done
}

func TestExchangeEndsWithItsContext(t *testing.T) {
	client, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	silent := netip.MustParseAddrPort(client.LocalAddr().String())
	if _, err := NewBinder(testID, testSecret, 0).Exchange(ctx, client, silent); !errors.Is(err, stopped) {
		t.Errorf("got %v, want %v", err, stopped)
	}
}

package await

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// Limit lets a connection stall no longer than Patience from now.
func Limit(t testing.TB, conn net.Conn) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		t.Fatal(err)
	}
}

// Accept takes the next connection of a service, which is closed with the test and is limited.
func Accept(t testing.TB, ln net.Listener) net.Conn {
	t.Helper()
	if err := ln.(*net.TCPListener).SetDeadline(time.Now().Add(Patience)); err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	Limit(t, conn)
	return conn
}

// RoundTrip sends a line from one end of a connection to the other and back.
func RoundTrip(t testing.TB, a, b net.Conn) {
	t.Helper()
	const line = "are you there?"
	got := make([]byte, len(line))
	for range 2 {
		if _, err := io.WriteString(a, line); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(b, got); err != nil || string(got) != line {
			t.Fatalf("got %q, %v; want %q", got, err, line)
		}
		a, b = b, a
	}
}

// Reset wants the next thing on a connection to be a reset, and no clean end. Who names the connection's end.
func Reset(t testing.TB, who string, conn net.Conn) {
	t.Helper()
	if n, err := conn.Read(make([]byte, 100)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: read %d bytes, %v; want a reset", who, n, err)
	}
}

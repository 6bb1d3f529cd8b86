package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// socketPair returns the two ends of a Unix connection.
func socketPair(t *testing.T) (here, there *net.UnixConn) {
	t.Helper()
	dir, err := os.MkdirTemp("", "np")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		other.Close()
	})
	return conn.(*net.UnixConn), other.(*net.UnixConn)
}

// output is a writer that notes its end.
type output struct {
	bytes.Buffer
	closed bool
}

func (o *output) Close() error {
	o.closed = true
	return nil
}

func TestConnectCarriesEachHalfToItsEnd(t *testing.T) {
	conn, daemon := socketPair(t)
	var out output
	over := make(chan struct{})
	go func() {
		defer close(over)
		// The target reads all before it answers: the half-close must arrive.
		b, _ := io.ReadAll(daemon)
		daemon.Write(bytes.ToUpper(b))
		daemon.Close()
	}()
	err := join(t.Context(), conn, strings.NewReader("hello"), &out, func(context.Context) error {
		<-over
		return nil
	})
	if err != nil || out.String() != "HELLO" || !out.closed {
		t.Errorf("got %q, closed %t, %v", out.String(), out.closed, err)
	}
}

func TestConnectFailsAsItsStreamDoes(t *testing.T) {
	conn, daemon := socketPair(t)
	daemon.Write([]byte("half of it"))
	daemon.Close()
	refused := errors.New("factory said: connection reset")
	var out output
	// Standard input stays open: a terminal.
	in, typed := io.Pipe()
	defer typed.Close()
	if err := join(t.Context(), conn, in, &out, func(context.Context) error { return refused }); err != refused {
		t.Errorf("%v, want %v", err, refused)
	}
	if out.String() != "half of it" {
		t.Errorf("what came before: %q", out.String())
	}
}

func TestConnectEndsWhenNobodyReads(t *testing.T) {
	conn, daemon := socketPair(t)
	go daemon.Write([]byte("hello"))
	in, typed := io.Pipe()
	defer typed.Close()
	gone := errors.New("broken pipe")
	err := join(t.Context(), conn, in, writer{gone}, func(context.Context) error {
		// The daemon sees its end close.
		_, err := daemon.Read(make([]byte, 1))
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "write output: broken pipe") {
		t.Errorf("got %v", err)
	}
}

// writer fails.
type writer struct{ err error }

func (w writer) Write([]byte) (int, error) { return 0, w.err }

package rawio

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
)

// pool counts the buffers that are out.
type pool struct{ out, most int }

func (p *pool) get() []byte {
	p.out++
	p.most = max(p.most, p.out)
	return make([]byte, 10)
}

func (p *pool) put([]byte) { p.out-- }

func TestReaderReadsWhatIsThere(t *testing.T) {
	for _, kind := range []string{"TCP", "pipe"} {
		var a, b net.Conn = net.Pipe()
		if kind == "TCP" {
			a, b = carriertest.TCP(t)
		}
		var p pool
		r := NewReader(b, p.get, p.put)
		go func() {
			a.Write([]byte("hello, world"))
			a.Close()
		}()
		var got []byte
		for {
			buf, n, err := r.Read()
			got = append(got, buf[:n]...)
			if buf != nil {
				p.put(buf)
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
		}
		if string(got) != "hello, world" {
			t.Errorf("%s: read %q", kind, got)
		}
		if p.out != 0 || p.most != 1 {
			t.Errorf("%s: %d buffers are out, at most %d were; want 0, 1", kind, p.out, p.most)
		}
		b.Close()
	}
}

func TestTryReadDoesNotWait(t *testing.T) {
	a, b := carriertest.TCP(t)
	defer a.Close()
	defer b.Close()
	var p pool
	r := NewReader(b, p.get, p.put)
	if buf, n, err := r.TryRead(); buf != nil || n != 0 || err != nil || p.out != 0 {
		t.Errorf("nothing to read: %v, %d, %v, %d buffers out", buf, n, err, p.out)
	}
}

func TestReadEndsWithItsDeadlineAndItsConnection(t *testing.T) {
	a, b := carriertest.TCP(t)
	defer a.Close()
	var p pool
	r := NewReader(b, p.get, p.put)
	b.SetReadDeadline(time.Now().Add(-time.Second))
	if _, _, err := r.Read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	b.Close()
	if _, _, err := r.Read(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if p.out != 0 {
		t.Errorf("%d buffers are out", p.out)
	}
}

func TestWriterWritesWhatFits(t *testing.T) {
	a, b := carriertest.TCP(t)
	defer b.Close()
	w := NewWriter(a)
	if w == nil {
		t.Skip("no connection can be written without waiting here")
	}
	data := bytes.Repeat([]byte("netport."), 8<<20)
	n, err := w.TryWrite(data)
	if err != nil || n == 0 || n == len(data) {
		t.Fatalf("64 MiB into a socket that nobody reads: %d written, %v", n, err)
	}
	if more, err := w.TryWrite(data); more > len(data)/2 || err != nil {
		t.Errorf("into a full socket: %d written, %v", more, err)
	} else {
		n += more
	}
	a.CloseWrite()
	if got, err := io.Copy(io.Discard, b); err != nil || got != int64(n) {
		t.Errorf("%d bytes arrived of %d: %v", got, n, err)
	}
	a.Close()
	if _, err := w.TryWrite(data); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestOnlySocketsAreWrittenDirectly(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if NewWriter(a) != nil {
		t.Error("a pipe in memory was taken for a socket")
	}
	// A type around a socket may change the bytes, as TLS does.
	c, d := carriertest.TCP(t)
	defer c.Close()
	defer d.Close()
	if NewWriter(struct{ net.Conn }{c}) != nil {
		t.Error("a type around a socket was taken for the socket")
	}
}

package rawio_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/portal/internal/carrier/rawio"
)

// pool counts the buffers that are out.
type pool struct {
	bufs [][]byte
	most int
}

func (p *pool) Get() [][]byte {
	if p.bufs == nil {
		p.bufs = [][]byte{make([]byte, 3), make([]byte, 2)}
	}
	p.most = max(p.most, len(p.bufs))
	return p.bufs
}

func (p *pool) Put() { p.bufs = nil }

// taken returns the first n bytes of the buffers.
func (p *pool) taken(n int) []byte { return bytes.Join(p.bufs, nil)[:n] }

func TestReaderReadsWhatIsThereInOrder(t *testing.T) {
	for _, kind := range []string{"TCP", "pipe"} {
		var a, b net.Conn = net.Pipe()
		if kind == "TCP" {
			a, b = carriertest.TCP(t)
		}
		var p pool
		r := rawio.NewReader(b, &p)
		go func() {
			a.Write([]byte("hello, world"))
			a.Close()
		}()
		var got []byte
		for {
			n, err := r.Read()
			if n > 0 {
				got = append(got, p.taken(n)...)
			}
			p.Put()
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
		b.Close()
	}
}

func TestTryReadDoesNotWaitAndHoldsNothing(t *testing.T) {
	a, b := carriertest.TCP(t)
	defer a.Close()
	defer b.Close()
	var p pool
	r := rawio.NewReader(b, &p)
	if n, err := r.TryRead(); n != 0 || err != nil || p.bufs != nil {
		t.Errorf("nothing to read: %d, %v, %d buffers out", n, err, len(p.bufs))
	}
}

func TestReadEndsWithItsDeadlineAndItsConnection(t *testing.T) {
	a, b := carriertest.TCP(t)
	defer a.Close()
	var p pool
	r := rawio.NewReader(b, &p)
	b.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := r.Read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	b.Close()
	if _, err := r.Read(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if p.most != 0 {
		t.Errorf("%d buffers were taken", p.most)
	}
}

func TestWriterWritesWhatFits(t *testing.T) {
	a, b := carriertest.TCP(t)
	defer b.Close()
	w := rawio.NewWriter(a)
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
	if rawio.NewWriter(a) != nil {
		t.Error("a pipe in memory was taken for a socket")
	}
	// A type around a socket may change the bytes, as TLS does.
	c, d := carriertest.TCP(t)
	defer c.Close()
	defer d.Close()
	if rawio.NewWriter(struct{ net.Conn }{c}) != nil {
		t.Error("a type around a socket was taken for the socket")
	}
}

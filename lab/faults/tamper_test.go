package faults

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
)

// after carries n bytes as they are and the rest with what follows.
func after(n int64, rest tamper) tamper {
	return func(portal io.Writer, relay io.Reader) error {
		if _, err := io.CopyN(portal, relay, n); err != nil {
			return err
		}
		return rest(portal, relay)
	}
}

// part is how many bytes the tampers below take at a time.
const part = 100

// take reads the next part.
func take(relay io.Reader) ([]byte, error) {
	b := make([]byte, part)
	_, err := io.ReadFull(relay, b)
	return b, err
}

// The tampers: each does its harm once.
var tampers = map[string]tamper{
	"flips a bit": func(portal io.Writer, relay io.Reader) error {
		b, err := take(relay)
		if err != nil {
			return err
		}
		b[part/2] ^= 0x10
		portal.Write(b)
		return faithful(portal, relay)
	},
	"duplicates": func(portal io.Writer, relay io.Reader) error {
		b, err := take(relay)
		if err != nil {
			return err
		}
		portal.Write(append(b, b...))
		return faithful(portal, relay)
	},
	"reorders": func(portal io.Writer, relay io.Reader) error {
		first, err := take(relay)
		if err != nil {
			return err
		}
		second, err := take(relay)
		if err != nil {
			return err
		}
		portal.Write(append(second, first...))
		return faithful(portal, relay)
	},
	"leaves out": func(portal io.Writer, relay io.Reader) error {
		if _, err := take(relay); err != nil {
			return err
		}
		return faithful(portal, relay)
	},
	"ends cleanly": func(io.Writer, io.Reader) error { return nil },
}

// flipAt flips a bit of the byte at an offset behind the leg's proof, on the first connection that gets so far.
func flipAt(offset int64) tamper {
	var done atomic.Bool
	return func(portal io.Writer, relay io.Reader) error {
		if _, err := io.CopyN(portal, relay, offset); err != nil {
			return err
		}
		b := make([]byte, 1)
		if _, err := io.ReadFull(relay, b); err != nil {
			return err
		}
		if !done.Swap(true) {
			b[0] ^= 1 << (offset % 8)
		}
		portal.Write(b)
		return faithful(portal, relay)
	}
}

// T27 and T30: whatever a relay does to the bytes, the exit notices before anything reaches an application, and leaves the
// carrier. The stream goes on over another: the application gets the right bytes and all of them, and a clean end behind
// the last.
func TestTamperingOnThePathReachesNoApplication(t *testing.T) {
	const size = 2 << 20
	w := newWorld(t)
	ln := w.plc.Listen(echoPort)
	w.allow(w.echoes()[0])
	m := newMiddle(t, w.office)
	content := patterned(size)

	w.fresh()
	if got, err := w.transfer(t, ln, content); err != nil || string(got) != string(content) {
		t.Fatalf("nobody tampered, and %d of %d bytes came, %v", len(got), size, err)
	}
	for name, tamper := range tampers {
		for _, offset := range []int64{1 << 20, 1<<20 + 12_345} {
			t.Run(fmt.Sprintf("%s behind %d", name, offset), func(t *testing.T) {
				m.use(after(offset, tamper))
				defer m.use(faithful)
				w.fresh()
				got, err := w.transfer(t, ln, content)
				if len(got) > 0 && string(got) != string(content[:min(len(got), size)]) {
					t.Errorf("wrong bytes came among %d", len(got))
				}
				if err != nil || len(got) < size {
					t.Errorf("the service read %d of %d bytes and then %v, want all over another carrier", len(got), size, err)
				}
				wantLogged(t, w.factory.Daemon, 0, "carrier lost", "kind=TLS") // fresh has started it anew
			})
		}
	}
}

// fresh ends the tunnel, so that the next client is carried by one of its own.
func (w *world) fresh() {
	w.t.Helper()
	w.factory.Kill()
	w.factory.Start()
	w.laptop.WaitUp("tcp")
}

// transfer sends content from a client to the service and returns what came, and how that ended.
func (w *world) transfer(t *testing.T, ln net.Listener, content []byte) ([]byte, error) {
	t.Helper()
	client := w.dial("tcp", entryPort)
	defer client.Close()
	go func() {
		client.Write(content) // an error shows at the other end
		client.(*net.TCPConn).CloseWrite()
	}()
	ln.(*net.TCPListener).SetDeadline(time.Now().Add(await.Patience))
	service, err := ln.Accept()
	if err != nil {
		return nil, err
	}
	defer service.Close()
	await.Limit(t, service)
	return io.ReadAll(service)
}

// T27: a bit is flipped anywhere in the handshakes and the first frames. The application gets what was sent, over a tunnel
// made anew, or is told that it did not.
func TestFlippedBitAtTheBeginningReachesNoApplication(t *testing.T) {
	t.Parallel()
	const first = 3000 // bytes that the entry portal sends before much of the content
	seed := rand.Uint64()
	dice := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	var offsets []int64
	for range 20 {
		offsets = append(offsets, dice.Int64N(first))
	}
	if *full {
		offsets = offsets[:0]
		for offset := range int64(first) {
			offsets = append(offsets, offset)
		}
	}
	const worlds = 2 // at a time; most of it is waiting
	for i := range worlds {
		part := offsets[i*len(offsets)/worlds : (i+1)*len(offsets)/worlds]
		t.Run(fmt.Sprint("world ", i), func(t *testing.T) {
			flipEach(t, part)
		})
	}
}

// flipEach sends something through a world of its own for each of the offsets.
func flipEach(t *testing.T, offsets []int64) {
	w := newWorld(t)
	w.allow(w.echoes()[0])
	m := newMiddle(t, w.office)
	content := patterned(2000)
	done := make(chan struct{})
	t.Cleanup(func() { <-done }) // after the listener was closed
	ln := w.plc.Listen(echoPort)
	go func() {
		defer close(done)
		for {
			service, err := ln.Accept()
			if err != nil {
				return
			}
			service.SetDeadline(time.Now().Add(await.Patience))
			got, err := io.ReadAll(service)
			service.Close()
			if len(got) > len(content) || string(got) != string(content[:len(got)]) || err == nil && len(got) < len(content) {
				t.Errorf("the service got %d bytes, %v, and not what was sent", len(got), err)
			}
		}
	}()
	whole := 0
	for _, offset := range offsets {
		m.use(flipAt(offset))
		w.fresh()
		ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
		client, err := w.laptop.Host().DialContext(ctx, "tcp", local(entryPort))
		cancel()
		if err != nil {
			continue // turned away already
		}
		await.Limit(t, client)
		client.Write(content)
		client.(*net.TCPConn).CloseWrite()
		if _, err := io.ReadAll(client); err == nil {
			whole++
		}
		client.Close()
	}
	t.Logf("%d of %d transfers were whole", whole, len(offsets))
}

// patterned is content of which every part is different.
func patterned(size int) []byte {
	b := make([]byte, 0, size)
	for i := uint64(0); len(b) < size; i++ {
		b = binary.BigEndian.AppendUint64(b, i*0x9e3779b97f4a7c15)
	}
	return b[:size]
}

//go:build linux

package bpf

import (
	"encoding/binary"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/ringbuf"
)

// enumOf returns the names of an enum of the C source by their values, without
// prefix and in small letters.
func enumOf(t *testing.T, name, prefix string) map[uint64]string {
	t.Helper()
	spec, err := loadRelay()
	if err != nil {
		t.Fatal(err)
	}
	var enum *btf.Enum
	if err := spec.Types.TypeByName(name, &enum); err != nil {
		t.Fatal(err)
	}
	names := make(map[uint64]string)
	for _, v := range enum.Values {
		names[v.Value] = strings.ToLower(strings.TrimPrefix(v.Name, prefix))
	}
	return names
}

func TestNamesAreThoseOfTheProgram(t *testing.T) {
	drops := enumOf(t, "drop_reason", "DROP_")
	if got, want := len(dropNames), len(drops)-1; got != want { // the last says how many there are
		t.Errorf("%d names of drops, want %d", got, want)
	}
	for i, name := range dropNames {
		if name != drops[uint64(i)] {
			t.Errorf("drop %d is %q, in C %q", i, name, drops[uint64(i)])
		}
	}
	reasons := enumOf(t, "event_reason", "REASON_")
	for value, name := range reasons {
		if got := EventReason(value).String(); got != name {
			t.Errorf("reason %d is %q, in C %q", value, got, name)
		}
	}
	if got := EventReason(200).String(); got != "reason 200" {
		t.Errorf("an unknown reason is %q", got)
	}
}

func TestEventsThatLieAreRefused(t *testing.T) {
	b := make([]byte, eventLen+4)
	for n := range uint32(6) {
		binary.NativeEndian.PutUint32(b[4:], n)
		e, err := parseEvent(b)
		if (err == nil) != (n <= 4) || err == nil && len(e.Packet) != int(n) {
			t.Errorf("%d bytes of packet in 4: %v, %v", n, e, err)
		}
	}
	for n := range eventLen {
		if _, err := parseEvent(b[:n]); err == nil {
			t.Errorf("an event of %d bytes", n)
		}
	}
}

// A SYN to a packet port is told to the daemon when its source is admitted, and
// dropped in any case.
func TestHandshakesAreToldOfAdmittedSources(t *testing.T) {
	for _, mode := range allModes {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			k := w.open(w.options(mode, ""))
			events := make(chan Event, 16)
			w.run(k, func(e Event) {
				e.Packet = append([]byte(nil), e.Packet...)
				events <- e
			})
			const port = 28672 + 5
			knock := func() { w.knock(port) }
			knock()
			await(t, "a stranger is counted", func() bool { return k.Drops()["unknown_source"] == 1 })
			if err := k.Admit(hostAddr(0, false), port&^7); err != nil {
				t.Fatal(err)
			}
			knock()
			e := <-events
			if e.Kind != Handshake || e.Reason.String() != "syn" || e.Interface != interfaceIndex(t, "a") || len(e.Packet) < 40 {
				t.Errorf("the event is %v", e)
			}
			if got := binary.BigEndian.Uint16(e.Packet[22:]); got != port {
				t.Errorf("its packet is to port %d", got)
			}
			if err := k.Dismiss(hostAddr(0, false), port&^7); err != nil {
				t.Fatal(err)
			}
			knock()
			await(t, "a stranger is counted", func() bool { return k.Drops()["unknown_source"] == 2 })
			if n := len(events); n != 0 {
				t.Errorf("%d more events", n)
			}
		})
	}
}

// knock sends a SYN of host 0 to a packet port of the relay.
func (w *world) knock(port int) {
	w.Helper()
	w.in(0, func() {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
		if err != nil {
			w.Fatal(err)
		}
		defer syscall.Close(fd)
		err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: port, Addr: relayAddr(0, false).As4()})
		if !errors.Is(err, syscall.EINPROGRESS) {
			w.Fatal(err)
		}
	})
}

func TestWhatCameWhileNoDaemonRanIsForgotten(t *testing.T) {
	const block = 28672
	w := newWorld(t)
	o := w.options(ModeTC, pinDir(t))
	k := w.open(o)
	if err := k.Admit(hostAddr(0, false), block); err != nil {
		t.Fatal(err)
	}
	w.knock(block)
	waiting := func() int {
		ring, err := ringbuf.NewReader(k.maps.Events)
		if err != nil {
			t.Fatal(err)
		}
		defer ring.Close()
		return ring.AvailableBytes()
	}
	await(t, "the event is in the ring", func() bool { return waiting() > 0 })
	k.Close()

	k = w.open(o)
	if n := waiting(); n != 0 {
		t.Errorf("%d bytes are in the ring", n)
	}
	if err := k.Admit(hostAddr(0, false), block); err != nil {
		t.Fatal(err)
	}
	events := make(chan uint16, 16)
	w.run(k, func(e Event) { events <- binary.BigEndian.Uint16(e.Packet[22:]) })
	w.knock(block + 1)
	if got := <-events; got != block+1 {
		t.Errorf("the first event is of port %d, want %d", got, block+1)
	}
}

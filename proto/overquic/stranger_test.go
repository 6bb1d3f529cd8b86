package overquic

import (
	"crypto/rand"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// first returns the first packet that a portal sends.
func (r *rig) first() []byte {
	r.Helper()
	sink, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		r.Fatal(err)
	}
	defer sink.Close()
	go r.dial(Dialer{}, sink.LocalAddr().String())
	b := make([]byte, 2048)
	sink.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := sink.Read(b)
	if err != nil {
		r.Fatal(err)
	}
	return b[:n]
}

// TestStrangersGetNothingButARetry: whatever comes from an address that has shown nothing, what
// goes back is smaller, and one packet; for most it is nothing (G1). And nothing is begun for it.
func TestStrangersGetNothingButARetry(t *testing.T) {
	r := newRig(t)
	initial := r.first()
	cut := initial[:1100]
	version := append([]byte(nil), initial...)
	copy(version[1:5], []byte{0x0a, 0x1a, 0x2a, 0x3a})
	short := make([]byte, 1200)
	rand.Read(short)
	short[0] = 0x40 | short[0]&0x3f
	handshake := append([]byte(nil), initial...)
	handshake[0] = initial[0]&0xcf | 0x20
	binding := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername("leg"), stun.Fingerprint).Raw
	junk := make([]byte, 1200)
	rand.Read(junk)
	for name, packet := range map[string][]byte{
		"the first packet of a portal": initial, "a short one": cut, "one of another version": version, "one of a running connection": short,
		"one in the middle of a handshake": handshake, "STUN": binding, "junk": append([]byte{0x80}, junk...), "one byte": {0xc0},
	} {
		stranger, err := net.Dial("udp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		defer stranger.Close()
		if _, err := stranger.Write(packet); err != nil {
			t.Fatal(err)
		}
		answers, bytes := 0, 0
		for wait := 300 * time.Millisecond; ; wait = 300 * time.Millisecond {
			stranger.SetReadDeadline(time.Now().Add(wait))
			b := make([]byte, 2048)
			n, err := stranger.Read(b)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			answers, bytes = answers+1, bytes+n
		}
		want := 0
		if name == "the first packet of a portal" {
			want = 1
		}
		if answers != want || bytes > len(packet)/4 {
			t.Errorf("%s (%d bytes): %d answers of %d bytes, want %d", name, len(packet), answers, bytes, want)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entered != 0 {
		t.Errorf("%d connections were begun", r.entered)
	}
}

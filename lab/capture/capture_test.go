package capture_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/netport/netport/lab/capture"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/ns"
)

// packet is one record of a pcap file.
type packet struct {
	at     time.Time
	length int // before it was cut
	data   []byte
}

func readPcap(t *testing.T, path string) (packets []packet) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const fileHeader, recordHeader = 24, 16
	if len(b) < fileHeader || binary.LittleEndian.Uint32(b) != 0xa1b23c4d || binary.LittleEndian.Uint32(b[20:]) != 1 {
		t.Fatalf("not a pcap file of Ethernet frames: %x", b[:min(len(b), fileHeader)])
	}
	for b = b[fileHeader:]; len(b) > 0; {
		captured := int(binary.LittleEndian.Uint32(b[8:]))
		packets = append(packets, packet{
			at:     time.Unix(int64(binary.LittleEndian.Uint32(b)), int64(binary.LittleEndian.Uint32(b[4:]))),
			length: int(binary.LittleEndian.Uint32(b[12:])),
			data:   b[recordHeader : recordHeader+captured],
		})
		b = b[recordHeader+captured:]
	}
	return packets
}

func TestCaptureHoldsAllThatCrossedBeforeClose(t *testing.T) {
	need.Root(t)
	space, err := ns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer space.Close()
	path := filepath.Join(t.TempDir(), "lo.pcap")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var c *capture.Capture
	var from, to *net.UDPConn
	var errs [3]error
	if err := space.Do(func() {
		c, errs[0] = capture.Start("lo", file)
		to, errs[1] = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		from, errs[2] = net.DialUDP("udp", nil, to.LocalAddr().(*net.UDPAddr))
	}); err != nil {
		t.Fatal(err)
	}
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	defer from.Close()
	defer to.Close()
	start := time.Now()
	const count, size = 100, 1000
	for i := range count {
		if _, err := from.Write(bytes.Repeat([]byte{byte(i)}, size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	packets := readPcap(t, path)
	if len(packets) != 2*count { // loopback shows each leaving and arriving
		t.Fatalf("%d packets, want %d", len(packets), 2*count)
	}
	const headers = 14 + 20 + 8
	for i, p := range packets {
		if p.length != headers+size || len(p.data) != 192 {
			t.Fatalf("packet %d: %d bytes of %d, want 192 of %d", i, len(p.data), p.length, headers+size)
		}
		if got := p.data[headers]; got != byte(i/2) {
			t.Fatalf("packet %d holds payload %d", i, got)
		}
		if p.at.Before(start.Add(-time.Second)) || p.at.After(time.Now().Add(time.Second)) {
			t.Fatalf("packet %d is of %v, now is %v", i, p.at, start)
		}
	}
}

func TestCaptureOfNoDeviceFails(t *testing.T) {
	need.Root(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "none.pcap"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := capture.Start("no-such-device", file); err == nil {
		t.Error("captured on a device that does not exist")
	}
}

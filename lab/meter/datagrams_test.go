package meter

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// datagramPipe is a connection in memory that keeps the boundaries of writes.
type datagramPipe struct {
	net.Conn // for deadlines and Read; a Read of a net.Pipe returns one write at most
	breaks   func(i int, b []byte) [][]byte
	written  int
}

func (p *datagramPipe) Write(b []byte) (int, error) {
	p.written++
	for _, datagram := range p.breaks(p.written-1, b) {
		if _, err := p.Conn.Write(datagram); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

func TestDatagramsReportWhatIsWrong(t *testing.T) {
	pass := func(i int, b []byte) [][]byte { return [][]byte{b} }
	var kept []byte
	for _, tt := range []struct {
		name   string
		breaks func(i int, b []byte) [][]byte
		want   DatagramReport
	}{
		{"nothing", pass, DatagramReport{Received: 100}},
		{"every tenth is lost", func(i int, b []byte) [][]byte {
			if i%10 == 3 {
				return nil
			}
			return [][]byte{b}
		}, DatagramReport{Received: 90, Lost: 10}},
		{"the last is lost", func(i int, b []byte) [][]byte {
			if i == 99 {
				return nil
			}
			return [][]byte{b}
		}, DatagramReport{Received: 99, Lost: 1}},
		{"one comes three times", func(i int, b []byte) [][]byte {
			if i == 5 {
				return [][]byte{b, b, b}
			}
			return [][]byte{b}
		}, DatagramReport{Received: 100, Duplicated: 2}},
		{"the last comes twice", func(i int, b []byte) [][]byte {
			if i == 99 {
				return [][]byte{b, b}
			}
			return [][]byte{b}
		}, DatagramReport{Received: 100, Duplicated: 1}},
		{"two change places", func(i int, b []byte) [][]byte {
			switch i {
			case 5:
				kept = append([]byte(nil), b...)
				return nil
			case 6:
				return [][]byte{b, kept}
			}
			return [][]byte{b}
		}, DatagramReport{Received: 100, Reordered: 1}},
		{"a bit flips", func(i int, b []byte) [][]byte {
			if i == 5 {
				b = append([]byte(nil), b...)
				b[len(b)-1] ^= 1
			}
			return [][]byte{b}
		}, DatagramReport{Received: 99, Lost: 1, Forged: 1}},
		{"one is cut short", func(i int, b []byte) [][]byte {
			if i == 5 {
				b = b[:len(b)-1]
			}
			return [][]byte{b}
		}, DatagramReport{Received: 99, Lost: 1, Forged: 1}},
		{"two are glued", func(i int, b []byte) [][]byte {
			switch i {
			case 5:
				kept = append([]byte(nil), b...)
				return nil
			case 6:
				return [][]byte{append(kept, b...)}
			}
			return [][]byte{b}
		}, DatagramReport{Received: 98, Lost: 2, Forged: 1}},
		{"one is added with another key", func(i int, b []byte) [][]byte {
			if i == 5 {
				forged := make([]byte, len(b))
				Datagrams{Key: []byte("guess")}.fill(forged, 50)
				return [][]byte{b, forged}
			}
			return [][]byte{b}
		}, DatagramReport{Received: 100, Forged: 1}},
		{"one is added beyond the last", func(i int, b []byte) [][]byte {
			if i == 5 {
				beyond := make([]byte, len(b))
				Datagrams{Key: []byte("key")}.fill(beyond, 100)
				return [][]byte{b, beyond}
			}
			return [][]byte{b}
		}, DatagramReport{Received: 100, Forged: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				defer a.Close()
				defer b.Close()
				d := Datagrams{Count: 100, Interval: time.Millisecond, Key: []byte("key")}
				got, err := d.Measure(t.Context(), &datagramPipe{Conn: a, breaks: tt.breaks}, b)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(DatagramReport{}, "LongestGap")); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				if wantErr := tt.want.Forged+tt.want.Duplicated > 0; (got.Check() != nil) != wantErr {
					t.Errorf("Check() = %v", got.Check())
				}
			})
		})
	}
}

func TestLongestGapIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		drop := func(i int, b []byte) [][]byte {
			if i >= 20 && i < 50 {
				return nil
			}
			return [][]byte{b}
		}
		d := Datagrams{Count: 100, Interval: 10 * time.Millisecond}
		got, err := d.Measure(t.Context(), &datagramPipe{Conn: a, breaks: drop}, b)
		if want := (DatagramReport{Received: 70, Lost: 30, LongestGap: 310 * time.Millisecond}); got != want || err != nil {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	})
}

func TestDatagramsOverPacketConns(t *testing.T) {
	a, b := listenUDP(t), listenUDP(t)
	d := Datagrams{Count: 80, Size: 1200, Linger: 50 * time.Millisecond} // as many as fit into a socket's buffer
	got, err := d.Measure(t.Context(), Peer{a, b.LocalAddr()}, Peer{b, a.LocalAddr()})
	if err != nil || got.Check() != nil || got.Received != d.Count {
		t.Errorf("got %v, %v, want all %d", got, err, d.Count)
	}
}

// A deadline of an earlier use does not keep the receiver from reading while the datagrams come.
func TestReceiverReadsInSpiteOfAnOldDeadline(t *testing.T) {
	from, to := net.Pipe() // which holds nothing: what is not read is not sent
	if err := to.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := from.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	report, err := Datagrams{Count: 10, Linger: time.Millisecond}.Measure(t.Context(), from, to)
	if err != nil || report.Received != 10 {
		t.Errorf("%v, %v", report, err)
	}
}

func TestSendingStopsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 95*time.Millisecond)
		defer cancel()
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		got, err := Datagrams{Count: 1000, Interval: 10 * time.Millisecond}.Measure(ctx, a, b)
		if got.Received != 10 || err != nil {
			t.Errorf("got %v, %v, want 10 received", got, err)
		}
	})
}

func TestSilenceCountsEveryDatagram(t *testing.T) {
	quiet, loud := listenUDP(t), listenUDP(t)
	quietSilence, loudSilence := Listen(quiet), Listen(loud)
	from := listenUDP(t)
	for range 50 {
		if _, err := from.WriteTo(make([]byte, 30), loud.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := loudSilence.Stop()
	source := from.LocalAddr().(*net.UDPAddr).AddrPort()
	want := Arrivals{Datagrams: 50, Bytes: 1500, First: netip.AddrPortFrom(source.Addr().Unmap(), source.Port())}
	if got != want || err != nil {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if got, err := quietSilence.Stop(); got != (Arrivals{}) || err != nil {
		t.Errorf("got %v, %v, want nothing", got, err)
	}
}

func listenUDP(t *testing.T) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

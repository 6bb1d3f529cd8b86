package daemon

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/metrics/metricstest"
)

// page returns the metrics of a portal as its command line gets them.
func (p *testPortal) page() (metricstest.Page, string) {
	p.w.Helper()
	var text string
	if err := local.Call(context.Background(), p.config.Socket, CallMetrics, nil, &text); err != nil {
		p.w.Fatal(err)
	}
	return metricstest.Read(p.w, text), text
}

// TestMetricsAreTrue carries a known number of bytes through a known number of streams
// and flows, and has some refused.
func TestMetricsAreTrue(t *testing.T) {
	w := newWorld(t)
	ann, factory, g := w.pairWith("[dial]\nallow = [\"tcp://127.0.0.1:*\", \"udp://127.0.0.1:*\"]\n")
	const streams, size, datagrams = 7, 123_456, 5
	for range streams {
		conn := w.dial("tcp", g.Listen.HostPort())
		sent := bytes.Repeat([]byte("x"), size)
		go func() {
			conn.Write(sent)
			conn.(*net.TCPConn).CloseWrite()
		}()
		if got, err := io.ReadAll(conn); err != nil || len(got) != size {
			t.Fatalf("%d bytes came back, %v", len(got), err)
		}
	}
	open := w.dial("tcp", g.Listen.HostPort())
	if got, err := ask(open, "hello"); got != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
	target, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	w.grant(w.permission("dns", "ann", "udp://"+w.freePort("udp"), "factory", "udp://"+target.LocalAddr().String()))
	client := w.dial("udp", strings.TrimPrefix(ann.waitState("dns", Up).Listen, "udp://"))
	for range datagrams {
		deadline := time.Now().Add(10 * time.Second)
		client.SetDeadline(deadline)
		target.SetReadDeadline(deadline)
		client.Write([]byte("question"))
		buf := make([]byte, 100)
		_, from, err := target.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		target.WriteTo([]byte("answer"), from)
		if n, err := client.Read(buf); err != nil || string(buf[:n]) != "answer" {
			t.Fatalf("got %q, %v", buf[:n], err)
		}
	}
	refused := func(listen string) {
		// The reset may come before Dial returns.
		if conn, err := net.Dial("tcp", strings.TrimPrefix(listen, "tcp://")); err == nil {
			io.ReadAll(conn)
			conn.Close()
		}
	}
	// One target where nobody listens, and one that the owner of the factory forbids.
	w.grant(w.permission("closed", "ann", "tcp://"+w.freePort("tcp"), "factory", "tcp://"+w.freePort("tcp")))
	refused(ann.waitState("closed", Up).Listen)
	w.grant(w.permission("forbidden", "ann", "tcp://"+w.freePort("tcp"), "factory", "tcp://127.0.0.2:1"))
	refused(ann.waitState("forbidden", Up).Listen)

	entry := map[string]float64{
		`netport_portal_bytes_total{forward="web",peer="factory",role="entry",direction="sent"}`:     streams*size + 5,
		`netport_portal_bytes_total{forward="web",peer="factory",role="entry",direction="received"}`: streams*size + 5,
		`netport_portal_streams_total{forward="web",peer="factory",role="entry"}`:                    streams + 1,
		`netport_portal_bytes_total{forward="dns",peer="factory",role="entry",direction="sent"}`:     datagrams * 8,
		`netport_portal_bytes_total{forward="dns",peer="factory",role="entry",direction="received"}`: datagrams * 6,
		`netport_portal_accepted_total{forward="web"}`:                                               streams + 1,
		`netport_portal_accepted_failed_total{forward="closed"}`:                                     1,
		`netport_portal_tunnel_up{peer="factory"}`:                                                   1,
		`netport_portal_server_connected`:                                                            1,
		`netport_portal_server_connections_total`:                                                    1,
		`netport_portal_forward_up{forward="web",peer="factory",role="entry"}`:                       1,
		`netport_portal_forwards{role="entry",state="up"}`:                                           4,
		`netport_portal_forwards{role="exit",state="up"}`:                                            0,
		`netport_portal_certificate_expiry_timestamp_seconds`:                                        float64(ann.credentials.Leaf().NotAfter.Unix()),
		`netport_portal_certificate_renewal_failed`:                                                  0,
	}
	exit := map[string]float64{
		`netport_portal_bytes_total{forward="web",peer="ann",role="exit",direction="received"}`: streams*size + 5,
		`netport_portal_bytes_total{forward="web",peer="ann",role="exit",direction="sent"}`:     streams*size + 5,
		`netport_portal_bytes_total{forward="dns",peer="ann",role="exit",direction="received"}`: datagrams * 8,
		`netport_portal_bytes_total{forward="dns",peer="ann",role="exit",direction="sent"}`:     datagrams * 6,
		`netport_portal_dials_failed_total{reason="target_refused"}`:                            1,
		`netport_portal_requests_refused_total{reason="forbidden_address"}`:                     1,
	}
	// What the last bytes were acknowledged by may be on its way.
	there := func(p *testPortal, want map[string]float64) func() bool {
		return func() bool {
			page, _ := p.page()
			for series, v := range want {
				if page[series] != v {
					return false
				}
			}
			return page[`netport_portal_streams{forward="web",peer="factory",role="entry"}`]+page[`netport_portal_streams{forward="web",peer="ann",role="exit"}`] == 1
		}
	}
	for _, side := range []struct {
		p    *testPortal
		want map[string]float64
	}{{ann, entry}, {factory, exit}} {
		for deadline := time.Now().Add(10 * time.Second); !there(side.p, side.want)(); {
			if time.Now().After(deadline) {
				page, text := side.p.page()
				page.Want(t, side.want)
				t.Fatal(text)
			}
		}
		_, text := side.p.page()
		metricstest.Lint(t, text)
	}
	if page, _ := ann.page(); page[`netport_portal_round_trip_seconds{peer="factory"}`] > 5 {
		t.Error("a round trip on this machine of more than 5 s")
	}

	// A portal that is told of fewer grants forgets no bytes.
	w.revoke(g)
	w.wait("the stream is cut", func() bool {
		page, _ := ann.page()
		return page[`netport_portal_streams{forward="web",peer="factory",role="entry"}`] == 0
	})
	page, _ := ann.page()
	page.Want(t, map[string]float64{`netport_portal_bytes_total{forward="web",peer="factory",role="entry",direction="sent"}`: streams*size + 5})
	if _, listed := page[`netport_portal_forward_up{forward="web",peer="factory",role="entry"}`]; listed {
		t.Error("a forward that was taken back is still listed")
	}
}

func TestMetricsAreWrittenToAFile(t *testing.T) {
	w := newWorld(t)
	dir := w.TempDir()
	file := filepath.Join(dir, "netport.prom")
	ann := w.portal("ann", "metrics_file = \""+file+"\"\n")
	w.wait("the file", func() bool {
		b, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(b), "netport_build_info{role=\"portal\"")
	})
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v; a node exporter has to read it", info.Mode(), err)
	}
	ann.stop()
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("a portal that has stopped leaves %v, %v: it would be taken for the present", list, err)
	}
}

// TestStallsAreCounted has a relay die and another fall silent under a transfer: what was
// carried is counted once, and the times when nothing was are known.
func TestStallsAreCounted(t *testing.T) {
	w := newWorld(t)
	ann, _, g := w.pair()
	tr := w.transfer(g, size)
	tr.reaches(size / 8)
	w.relay.close()
	w.wait("a stall", func() bool {
		s := ann.Status().Tunnels
		return len(s) == 1 && !s[0].Up
	})
	second := w.addRelay()
	tr.reaches(size / 4)
	third := w.addRelay()
	defer second.stall()()
	tr.wantWell(4 * time.Second)
	w.wait("the third relay", func() bool {
		s := ann.Status().Tunnels
		return len(s) == 1 && s[0].Relay == third.name
	})
	w.wait("its end", func() bool {
		page, _ := ann.page()
		return page[`netport_portal_streams{forward="web",peer="factory",role="entry"}`] == 0
	})
	page, text := ann.page()
	page.Want(t, map[string]float64{
		`netport_portal_bytes_total{forward="web",peer="factory",role="entry",direction="sent"}`:     size,
		`netport_portal_bytes_total{forward="web",peer="factory",role="entry",direction="received"}`: size,
		`netport_portal_streams_total{forward="web",peer="factory",role="entry"}`:                    1,
		`netport_portal_stalls_total{peer="factory"}`:                                                2,
	})
	if n := page[`netport_portal_resumes_total{forward="web",peer="factory",role="entry"}`]; n < 2 {
		t.Errorf("the stream moved %v times", n)
	}
	longest, total := page[`netport_portal_stall_longest_seconds{peer="factory"}`], page[`netport_portal_stall_seconds_total{peer="factory"}`]
	if longest <= 0 || longest > 4 || total < longest || total > 8 {
		t.Errorf("stalls of %v s in all, the longest of %v s\n%s", total, longest, text)
	}
}

package e2e

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/need"
)

// iperfReport is what "iperf3 --json" says, as far as it is looked at.
type iperfReport struct {
	Error string `json:"error"`
	End   struct {
		Sent            iperfSum `json:"sum_sent"`     // by the side that sends
		Received        iperfSum `json:"sum_received"` // as the side that receives says
		SentReverse     iperfSum `json:"sum_sent_bidir_reverse"`
		ReceivedReverse iperfSum `json:"sum_received_bidir_reverse"`
		Streams         []any    `json:"streams"`
	} `json:"end"`
}

type iperfSum struct {
	Bytes   int64 `json:"bytes"`
	Packets int64 `json:"packets"`
	Lost    int64 `json:"lost_packets"`
}

// iperf runs a client for a second. It must end well.
func (c client) iperf(t *testing.T, args ...string) iperfReport {
	t.Helper()
	args = append([]string{"--client", c.entry.String(), "--json", "--time", "1"}, args...)
	var report iperfReport
	// The server takes one client at a time and says so; the one before may not have left it yet.
	await.Until(t, "served", func() error {
		r := await.Exit(t, c.host.Command("iperf3", args...))
		report = iperfReport{}
		if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
			t.Fatalf("iperf3 %q: status %d, no report (%v):\n%s%s", args, r.Status, err, r.Stdout, r.Stderr)
		}
		switch {
		case strings.Contains(report.Error, "the server is busy"):
			return errors.New(report.Error)
		case report.Error != "" || r.Status != 0:
			t.Fatalf("iperf3 %q: status %d, %s", args, r.Status, report.Error)
		}
		return nil
	})
	return report
}

// iperf3's data connections, and its UDP, go to the port of its control connection.
func TestIperf3(t *testing.T) {
	need.Program(t, "iperf3")
	w := newWorld(t)
	w.plc.Start(w.plc.Command("iperf3", "--server").As("nobody"))
	await.Listening(t, w.plc, "tcp", 5201)
	w.allow(t, append(
		w.offer("iperf-tcp", "tcp", 5201, endpoint("tcp", w.plc.Addr(), 5201)),
		w.offer("iperf-udp", "udp", 5201, endpoint("udp", w.plc.Addr(), 5201))...)...)

	w.each(t, func(t *testing.T, c client) {
		for _, tt := range []struct {
			name    string
			args    []string
			streams int
			bidir   bool
		}{
			{"TCP", nil, 1, false},
			{"TCP, 4 streams", []string{"--parallel", "4"}, 4, false},
			{"TCP, reverse", []string{"--reverse"}, 1, false},
			{"TCP, 4 streams, reverse", []string{"--parallel", "4", "--reverse"}, 4, false},
			{"TCP, both ways", []string{"--bidir"}, 2, true},
		} {
			t.Run(tt.name, func(t *testing.T) {
				r := c.iperf(t, tt.args...).End
				if len(r.Streams) != tt.streams {
					t.Errorf("%d streams, want %d", len(r.Streams), tt.streams)
				}
				const enough = 1 << 20
				if r.Received.Bytes < enough || r.Received.Bytes > r.Sent.Bytes {
					t.Errorf("%d bytes arrived of %d", r.Received.Bytes, r.Sent.Bytes)
				}
				if back, sent := r.ReceivedReverse.Bytes, r.SentReverse.Bytes; tt.bidir && (back < enough || back > sent) {
					t.Errorf("%d bytes came back of %d", back, sent)
				}
				t.Logf("%d MB", (r.Received.Bytes+r.ReceivedReverse.Bytes)/1e6)
			})
		}
		for _, tt := range []struct {
			name string
			args []string
			lost float64 // the largest share
		}{
			// 10 Mbit/s is little here: what is lost of it was lost without need.
			{"UDP", []string{"--bitrate", "10M"}, 0.05},
			{"UDP, reverse", []string{"--bitrate", "10M", "--reverse"}, 0.05},
			{"UDP, large datagrams", []string{"--bitrate", "10M", "--length", "20000"}, 0.05},
			{"UDP, more than can pass", []string{"--bitrate", "0"}, 1},
		} {
			t.Run(tt.name, func(t *testing.T) {
				r := c.iperf(t, append(tt.args, "--udp")...).End
				sent, got := r.Sent, r.Received
				if sent.Packets < 20 || got.Lost < 0 || float64(got.Lost) > tt.lost*float64(sent.Packets) {
					t.Errorf("%d datagrams were sent and %d lost of them", sent.Packets, got.Lost)
				}
				if got.Bytes == 0 || got.Bytes > sent.Bytes {
					t.Errorf("%d bytes arrived of %d", got.Bytes, sent.Bytes)
				}
				t.Logf("%d of %d bytes, %d of %d datagrams lost", got.Bytes, sent.Bytes, got.Lost, sent.Packets)
			})
		}
	})
}

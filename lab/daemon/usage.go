package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/netport/netport/proto/metrics/metricstest"
)

// metricsAt is where a server or relay with the option Measured serves its metrics, on its own host.
const metricsAt = "127.0.0.1:9400"

// Measured has a server or a relay serve its metrics, which Goroutines reads. A portal's are asked by its command line.
func Measured() Option { return Set("metrics", metricsAt) }

// Memory is the daemon's resident memory in bytes.
func (d *Daemon) Memory() int64 {
	d.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.process.PID()))
	if err != nil {
		d.t.Fatalf("%s: %v", d.name, err)
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
			kb, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				d.t.Fatalf("%s: %v", d.name, err)
			}
			return kb << 10
		}
	}
	d.t.Fatalf("%s: no VmRSS in its status", d.name)
	return 0
}

// Descriptors is how many files and sockets the daemon has open.
func (d *Daemon) Descriptors() int {
	d.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.process.PID()))
	if err != nil {
		d.t.Fatalf("%s: %v", d.name, err)
	}
	return len(list)
}

// Goroutines is how many the daemon says it has. Server and relay say it with the option Measured.
func (d *Daemon) Goroutines() int {
	d.t.Helper()
	page, err := d.metrics()
	if err != nil {
		d.t.Fatalf("%s: read its metrics: %v", d.name, err)
	}
	name := "netport_" + d.role + "_goroutines"
	n, ok := metricstest.Read(d.t, page)[name]
	if !ok {
		d.t.Fatalf("%s: its metrics have no %s", d.name, name)
	}
	return int(n)
}

func (d *Daemon) metrics() (string, error) {
	if d.role == "portal" {
		return d.output(d.Command("metrics"))
	}
	dial := func(ctx context.Context, network, at string) (net.Conn, error) {
		return d.host.DialContext(ctx, network, netip.MustParseAddrPort(at))
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: patience}
	response, err := client.Get("http://" + metricsAt + "/metrics")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answers %s", response.Status)
	}
	return string(b), err
}

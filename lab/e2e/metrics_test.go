package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/proto/metrics/metricstest"
)

// scrape asks a daemon for its metrics over HTTP, from its own machine and as its user.
func scrape(t *testing.T, host *topo.Host, args ...string) string {
	t.Helper()
	out, err := host.Command("curl", append([]string{"--silent", "--show-error", "--fail"}, args...)...).As(daemon.User).Output()
	if err != nil {
		t.Fatalf("curl %q: %v", args, err)
	}
	return string(out)
}

// TestMetrics has all three daemons print metrics under traffic, in each way that there is, and compares what they
// say with each other and with what was carried.
func TestMetrics(t *testing.T) {
	need.Program(t, "curl", "promtool")
	w := newWorldOf(t, commonHome, commonOffice, daemon.InKernel("tc"))
	const address = "127.0.0.1:9400"
	w.Server.Stop()
	w.Server.Configure("metrics", address)
	w.Server.Start()
	socket := filepath.Join(w.relay.Dir(), "metrics.sock")
	w.relay.Stop()
	w.relay.Configure("metrics", "unix://"+socket)
	w.relay.Start()
	file := filepath.Join(w.factory.Dir(), "netport.prom")
	w.factory.Stop()
	w.factory.Configure("metrics_file", file)
	w.factory.Start()
	w.laptop.WaitConnected()

	nginx := startNginx(t, w.plc)
	const size, times = 3 << 20, 5
	nginx.put(t, "page", size)
	w.allow(t, w.offer("web", "tcp", 8080, endpoint("tcp", w.plc.Addr(), webPort))...)
	c := w.clients()[0]
	for range times {
		cmd := c.curl(c.url(8080, "page"))
		cmd.Stdout = io.Discard
		await.Success(t, cmd)
	}

	// What a portal has sent it counts when its peer has acknowledged it.
	const web = `forward="web-0",peer=`
	var pages map[string]string
	await.Until(t, "both portals to count the same", func() error {
		pages = map[string]string{
			"server": scrape(t, w.Server.Host(), "http://"+address+"/metrics"),
			"relay":  scrape(t, w.relay.Host(), "--unix-socket", socket, "http://relay/metrics"),
			"entry":  w.laptop.Run("metrics"),
			"exit":   w.factory.Run("metrics"),
		}
		received := metricstest.Read(t, pages["entry"])[`netport_portal_bytes_total{`+web+`"factory",role="entry",direction="received"}`]
		if sent := metricstest.Read(t, pages["exit"])[`netport_portal_bytes_total{`+web+`"laptop",role="exit",direction="sent"}`]; sent != received {
			return fmt.Errorf("%v bytes were sent, %v received", sent, received)
		}
		return nil
	})
	for name, text := range pages {
		t.Run(name, func(t *testing.T) { metricstest.Lint(t, text) })
	}
	server, relay := metricstest.Read(t, pages["server"]), metricstest.Read(t, pages["relay"])
	entry, exit := metricstest.Read(t, pages["entry"]), metricstest.Read(t, pages["exit"])
	server.Want(t, map[string]float64{
		`netport_server_portals_connected{transport="tcp"}`: 2,
		`netport_server_relays_connected`:                   1,
		`netport_server_relay_ready{relay="relay"}`:         1,
		`netport_server_sessions{state="open"}`:             1,
		`netport_server_grants`:                             2,
		`netport_server_relay_sessions{relay="relay"}`:      1,
	})
	entry.Want(t, map[string]float64{
		`netport_portal_streams_total{` + web + `"factory",role="entry"}`:                    times,
		`netport_portal_accepted_total{forward="web-0"}`:                                     times,
		`netport_portal_bytes_total{` + web + `"factory",role="entry",direction="sent"}`:     exit[`netport_portal_bytes_total{`+web+`"laptop",role="exit",direction="received"}`],
		`netport_portal_bytes_total{` + web + `"factory",role="entry",direction="received"}`: exit[`netport_portal_bytes_total{`+web+`"laptop",role="exit",direction="sent"}`],
		`netport_portal_forward_up{` + web + `"factory",role="entry"}`:                       1,
	})
	payload := entry[`netport_portal_bytes_total{`+web+`"factory",role="entry",direction="received"}`]
	if payload < times*size || payload > times*(size+1000) {
		t.Errorf("%v bytes of %d files of %d", payload, times, size)
	}
	carried := relay[`netport_relay_bytes_total{transport="tcp",plane="kernel",direction="back"}`] + relay[`netport_relay_bytes_total{transport="tcp",plane="userspace",direction="back"}`]
	if carried < payload || carried > payload*1.1 {
		t.Errorf("the relay has carried %v bytes back, of which %v were the application's", carried, payload)
	}
	relay.Want(t, map[string]float64{`netport_relay_sessions{by="server"}`: 1, `netport_relay_server_connected`: 1})

	t.Run("strangers are not answered", func(t *testing.T) {
		for _, args := range [][]string{
			{"--header", "Host: evil.example", "http://" + address + "/metrics"},
			{"http://" + address + "/"},
			{"--request", "POST", "http://" + address + "/metrics"},
		} {
			if out, err := w.Server.Host().Command("curl", append([]string{"--silent", "--fail"}, args...)...).As(daemon.User).Output(); err == nil {
				t.Errorf("curl %q: %.200s", args, out)
			}
		}
		if out, err := w.relay.Host().Command("curl", "--silent", "--fail", "--unix-socket", socket, "http://relay/metrics").As("daemon").Output(); err == nil {
			t.Errorf("another user reads the relay's socket: %.200s", out)
		}
	})
	t.Run("a file for a node exporter", func(t *testing.T) {
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o644 {
			t.Fatalf("%v, %v", info, err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		metricstest.Lint(t, string(b))
	})

	var printed []string
	for _, text := range pages {
		printed = append(printed, metricstest.Names(text)...)
	}
	testDashboard(t, printed)
}

// names finds metrics in expressions; the series of a histogram are its own.
func names(text string) []string {
	found := regexp.MustCompile(`netport_[a-z_]+`).FindAllString(text, -1)
	for i := range found {
		found[i] = strings.TrimSuffix(found[i], "_bucket")
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// testDashboard wants the dashboard and the alerts to speak of what is printed, and the dashboard to show whatever there
// is an alert for.
func testDashboard(t *testing.T, printed []string) {
	folder := filepath.Join("..", "..", "scripts", "grafana")
	b, err := os.ReadFile(filepath.Join(folder, "netport.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			ID      int    `json:"id"`
			Title   string `json:"title"`
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&dashboard); err != nil {
		t.Fatal(err)
	}
	var shown []string
	ids, places := map[int]bool{}, map[string]bool{}
	for _, p := range dashboard.Panels {
		place := strconv.Itoa(p.GridPos.X) + "," + strconv.Itoa(p.GridPos.Y)
		if ids[p.ID] || places[place] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q has the number or the place of another", p.Title)
		}
		ids[p.ID], places[place] = true, true
		for _, target := range p.Targets {
			shown = append(shown, names(target.Expr)...)
		}
	}
	rules := filepath.Join(folder, "alerts.yml")
	if out, err := topo.Here("promtool", "check", "rules", rules).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
	if b, err = os.ReadFile(rules); err != nil {
		t.Fatal(err)
	}
	alerts := names(string(b))
	for _, name := range slices.Concat(shown, alerts) {
		if !slices.Contains(printed, name) {
			t.Errorf("%s is printed by no daemon", name)
		}
	}
	for _, name := range alerts {
		if !slices.Contains(shown, name) {
			t.Errorf("there is an alert for %s, and it is not on the dashboard", name)
		}
	}
	if len(shown) < 50 || len(alerts) < 20 {
		t.Errorf("%d metrics are shown, %d have alerts", len(shown), len(alerts))
	}
}

package scrape

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/metrics"
)

func page() *metrics.Page { return metrics.NewPage("relay", "1.2.3", time.Now()) }

// serve serves at a, or at a free port of its address, and returns where, and stop.
func serve(t *testing.T, a Address) (Address, func() error) {
	t.Helper()
	s, err := Listen(a, page, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if a.Network == "tcp" {
		a.Address = s.listener.Addr().String()
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop := func() error { cancel(); return <-ended }
	t.Cleanup(func() { cancel() })
	return a, stop
}

// ask sends lines and returns status and body of the answer.
func ask(t *testing.T, a Address, lines ...string) (int, string) {
	t.Helper()
	c, err := net.Dial(a.Network, a.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "%s\r\n\r\n", strings.Join(lines, "\r\n"))
	method, _, _ := strings.Cut(lines[0], " ")
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: %v", lines, err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode == http.StatusOK && r.Header.Get("Content-Type") != contentType {
		t.Errorf("it is %q", r.Header.Get("Content-Type"))
	}
	return r.StatusCode, string(b)
}

var loopback = Address{"tcp", "127.0.0.1:0"}

func TestOnlyWhoMeansThisAddressIsAnswered(t *testing.T) {
	a, _ := serve(t, loopback)
	port := a.Address[strings.LastIndexByte(a.Address, ':')+1:]
	for host, want := range map[string]int{
		"127.0.0.1:" + port:              200,
		"localhost:" + port:              200,
		"LocalHost:" + port:              200,
		"127.0.0.1":                      421,
		"127.0.0.1:1":                    421,
		"127.0.0.2:" + port:              421,
		"[::1]:" + port:                  421,
		"evil.example:" + port:           421,
		"evil.example":                   421,
		"localhost.evil.example:" + port: 421,
		"127.0.0.1.evil.example:" + port: 421,
		"":                               421,
	} {
		code, body := ask(t, a, "GET /metrics HTTP/1.1", "Host: "+host)
		if code != want || (code == 200) != strings.Contains(body, "netport_build_info{") {
			t.Errorf("Host %q: %d, want %d\n%s", host, code, want, body)
		}
	}
}

func TestOnlyMetricsAreRead(t *testing.T) {
	a, _ := serve(t, loopback)
	host := "Host: " + a.Address
	for line, want := range map[string]int{
		"HEAD /metrics HTTP/1.1":           200,
		"GET /metrics?x=1 HTTP/1.1":        200,
		"POST /metrics HTTP/1.1":           405,
		"DELETE /metrics HTTP/1.1":         405,
		"GET / HTTP/1.1":                   404,
		"GET /debug/pprof HTTP/1.1":        404,
		"GET /metrics/../etc HTTP/1.1":     404,
		"GET http://evil/metrics HTTP/1.1": 421,
		"NONSENSE":                         400,
	} {
		if code, body := ask(t, a, line, host); code != want {
			t.Errorf("%s: %d, want %d: %s", line, code, want, body)
		}
	}
}

// TestLargeHeadersAreNotRead sends one without an end: the server hangs up.
func TestLargeHeadersAreNotRead(t *testing.T) {
	a, _ := serve(t, loopback)
	c, err := net.Dial("tcp", a.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(requestTime / 2)) // before a time limit does
	sent := 0
	for err = nil; err == nil; {
		var n int
		n, err = fmt.Fprintf(c, "GET /metrics HTTP/1.1\r\nX: %s\r\n", strings.Repeat("x", 16<<10))
		sent += n
	}
	if os.IsTimeout(err) || sent > 16<<20 {
		t.Errorf("%d bytes of headers were taken: %v", sent, err)
	}
}

func TestSocketIsForItsOwner(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "metrics.sock")
	a, stop := serve(t, Address{"unix", file})
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if code, body := ask(t, a, "GET /metrics HTTP/1.1", "Host: whatever"); code != 200 || !strings.Contains(body, "netport_relay_goroutines ") {
		t.Errorf("%d\n%s", code, body)
	}
	if _, err := Listen(a, page, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "serve metrics: listen on socket "+file+": another daemon runs there") {
		t.Errorf("a second daemon: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the socket is still there")
	}
	// The file of somebody else stays.
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(a, page, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a file was taken for a socket")
	}
}

// TestSilentCallersDoNotKeepOthersOut fills every place with callers that say nothing:
// the next is turned away, and served again when one has left.
func TestSilentCallersDoNotKeepOthersOut(t *testing.T) {
	a, stop := serve(t, loopback)
	var held []net.Conn
	for range maxConnections {
		c, err := net.Dial("tcp", a.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	c, err := net.Dial("tcp", a.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || os.IsTimeout(err) {
		t.Fatalf("one too many: %d, %v", n, err)
	}
	// Whoever says nothing is gone by himself after a while: then there is room.
	held[0].SetReadDeadline(time.Now().Add(4 * requestTime))
	if _, err := held[0].Read(make([]byte, 1)); os.IsTimeout(err) {
		t.Fatal("a silent caller stays")
	}
	if code, _ := ask(t, a, "GET /metrics HTTP/1.1", "Host: "+a.Address); code != 200 {
		t.Errorf("then: %d", code)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestAddressIsOfThisMachineAlone(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "",
		"unix:///run/n/m.sock":      "unix:///run/n/m.sock",
		"127.0.0.1:9401":            "127.0.0.1:9401",
		"127.9.9.9:1":               "127.9.9.9:1",
		"[::1]:9401":                "[::1]:9401",
		"0.0.0.0:9401":              "others can reach it",
		"[::]:9401":                 "others can reach it",
		"192.0.2.1:9401":            "others can reach it",
		"[::ffff:127.0.0.1]:9401":   "no address for metrics",
		":9401":                     "no address for metrics",
		"localhost:9401":            "no address for metrics",
		"127.0.0.1":                 "no address for metrics",
		"127.0.0.1:0":               "has no port",
		"127.0.0.1:99999":           "no address for metrics",
		"http://127.0.0.1:9401":     "no address for metrics",
		"unix://metrics.sock":       "names no file",
		"unix:///run/../etc/passwd": "names no file",
		"unix:///":                  "names no file",
	} {
		a, err := ParseAddress(text)
		switch {
		case err == nil && a.String() != want, err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("%q: %v, %v; want %q", text, a, err, want)
		case err != nil && !strings.Contains(err.Error(), `write "unix://`):
			t.Errorf("%q: %v says not what to do", text, err)
		case a.IsZero() != (err != nil || text == ""):
			t.Errorf("%q: zero %t", text, a.IsZero())
		}
	}
}

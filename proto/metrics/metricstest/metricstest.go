// Package metricstest reads pages of metrics in tests, and has promtool judge them.
package metricstest

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// Page is a page that was read: values by name and labels, as they stand there.
type Page map[string]float64

// Read reads a page. What is no page of metrics fails the test.
func Read(t testing.TB, text string) Page {
	t.Helper()
	p := make(Page)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || !strings.HasSuffix(line, "\n") {
			t.Fatalf("no line of metrics: %q", line)
		}
		v, err := strconv.ParseFloat(line[i+1:len(line)-1], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if _, twice := p[line[:i]]; twice {
			t.Fatalf("%s stands there twice", line[:i])
		}
		p[line[:i]] = v
	}
	return p
}

// Names returns the names of all metrics on a page.
func Names(text string) (list []string) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, _, _ := strings.Cut(rest, " ")
			list = append(list, name)
		}
	}
	return list
}

// Want wants series to have these values.
func (p Page) Want(t testing.TB, want map[string]float64) {
	t.Helper()
	for series, v := range want {
		if got, ok := p[series]; !ok || got != v {
			t.Errorf("%s is %v (there: %t), want %v", series, got, ok, v)
		}
	}
}

// Get scrapes a daemon over HTTP at 127.0.0.1:PORT.
func Get(t testing.TB, address string) string {
	t.Helper()
	r, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v\n%s", r.Status, err, b)
	}
	return string(b)
}

// Lint has promtool judge a page, in a test of its own.
func Lint(t *testing.T, text string) {
	t.Run("promtool", func(t *testing.T) {
		promtool, err := exec.LookPath("promtool")
		if err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("needs promtool (Debian's package prometheus)")
			}
			t.Skip("needs promtool (Debian's package prometheus)")
		}
		c := exec.Command(promtool, "check", "metrics")
		c.Stdin = strings.NewReader(text)
		if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("promtool check metrics: %v\n%s\n%s", err, out, text)
		}
	})
}

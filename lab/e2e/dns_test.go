package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/dnsmasq"
	"github.com/netport/netport/lab/need"
)

// A name server over UDP, and over TCP at the same port number, where dig goes by itself with an answer that was cut.
func TestDNS(t *testing.T) {
	need.Program(t, "dig")
	w := newWorld(t)
	const names = 100
	var records []string
	for i := range names {
		records = append(records, fmt.Sprintf("--host-record=plc-%d.example,10.0.0.%d", i, i))
	}
	long := strings.Repeat("x", 200)
	for i := range 20 {
		records = append(records, fmt.Sprintf("--txt-record=long.example,%d %s", i, long))
	}
	dnsmasq.Start(t, w.plc, 5353, records...)
	w.allow(t, append(
		w.offer("dns-udp", "udp", 1053, endpoint("udp", w.plc.Addr(), 5353)),
		w.offer("dns-tcp", "tcp", 1053, endpoint("tcp", w.plc.Addr(), 5353))...)...)

	w.each(t, func(t *testing.T, c client) {
		dig := func(args ...string) string {
			t.Helper()
			return await.Success(t, c.host.Command("dig", append([]string{"@" + c.entry.String(), "-p", "1053", "+tries=1", "+timeout=20"}, args...)...))
		}
		for _, over := range []string{"+notcp", "+tcp"} {
			if got := strings.TrimSpace(dig(over, "+short", "plc-5.example")); got != "10.0.0.5" {
				t.Errorf("%s: got %q, want 10.0.0.5", over, got)
			}
			if got := dig(over, "nothing.example"); !strings.Contains(got, "status: REFUSED") {
				t.Errorf("%s: an unknown name: %s", over, got)
			}
		}
		if got := dig("long.example", "TXT"); !strings.Contains(got, "ANSWER: 20,") || !strings.Contains(got, "Truncated, retrying in TCP mode") {
			t.Errorf("a long answer: %s", got)
		}
		if got := dig("+notcp", "+ignore", "long.example", "TXT"); !strings.Contains(got, " tc ") {
			t.Errorf("a long answer over UDP alone: %s", got)
		}
		var batch, want strings.Builder
		for i := range names {
			fmt.Fprintf(&batch, "plc-%d.example\n", i)
			fmt.Fprintf(&want, "10.0.0.%d\n", i)
		}
		if got := dig("+short", "-f", c.host.WriteFile("names", batch.String())); got != want.String() {
			t.Errorf("%d names, each from a socket of its own: got\n%s", names, got)
		}
	})
}

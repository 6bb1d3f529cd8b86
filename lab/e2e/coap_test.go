package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/need"
)

// CoAP over UDP: requests, block transfers in both directions, a resource that is observed.
func TestCoAP(t *testing.T) {
	need.Program(t, "coap-client-notls", "coap-server-notls")
	w := newWorld(t)
	w.plc.Start(w.plc.Command("coap-server-notls", "-A", w.plc.Addr().String(), "-p", "5683", "-d", "10").As("nobody"))
	await.Listening(t, w.plc, "udp", 5683)
	w.allow(t, w.offer("coap", "udp", 5683, endpoint("udp", w.plc.Addr(), 5683))...)

	w.each(t, func(t *testing.T, c client) {
		coap := func(method, resource string, args ...string) string {
			t.Helper()
			args = append([]string{"-B", "30", "-m", method}, append(args, "coap://"+hostPort(c.entry, 5683)+"/"+resource)...)
			return await.Success(t, c.host.Command("coap-client-notls", args...))
		}
		if got := coap("get", ".well-known/core"); !strings.Contains(got, "</time>") {
			t.Errorf("the server's resources: %q", got)
		}
		sent := filepath.Join(c.host.Dir(), "sent")
		writeRandom(t, sent, 40_000)
		for _, block := range []string{"64", "1024"} {
			got := filepath.Join(c.host.Dir(), "got-"+block)
			coap("put", "blocks-"+c.host.Name(), "-b", block, "-f", sent)
			coap("get", "blocks-"+c.host.Name(), "-b", block, "-o", got)
			if a, b := fileSum(t, sent), fileSum(t, got); a != b {
				t.Errorf("blocks of %s: SHA-256 %s there, %s back", block, a, b)
			}
			if err := os.Remove(got); err != nil {
				t.Fatal(err)
			}
		}
		// A notification a second.
		if got := strings.Fields(coap("get", "time", "-s", "3", "-w")); len(got) < 3 {
			t.Errorf("observed for three seconds, heard %q", got)
		}
	})
}

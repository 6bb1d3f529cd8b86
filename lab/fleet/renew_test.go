package fleet

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
)

// limit is how long a stream may stand still while certificates change: row F45. What the machine adds is beside it.
const limit = 200 * time.Millisecond

// ends are when the certificates of the server and of all portals and relays end, by name.
func (w *world) ends(t *testing.T) map[string]time.Time {
	t.Helper()
	var status struct {
		Expires time.Time `json:"certificate_expires"`
	}
	type enrolled struct {
		Name     string    `json:"name"`
		NotAfter time.Time `json:"not_after"`
	}
	var portals, relays []enrolled
	for command, v := range map[string]any{"status": &status, "portals": &portals, "relays": &relays} {
		if err := json.Unmarshal([]byte(w.Server.Run(command, "--json")), v); err != nil {
			t.Fatal(err)
		}
	}
	ends := map[string]time.Time{"server": status.Expires}
	for _, e := range append(portals, relays...) {
		ends[e.Name] = e.NotAfter
	}
	return ends
}

// F45, F46: certificates of a minute are renewed by everybody, again and again, and no stream notices.
func TestCertificatesOfAMinuteAreRenewedUnderAStream(t *testing.T) {
	w := newWorld(t, daemon.Set("certificate_life", "1m"))
	tr := w.run(t)
	first := w.ends(t)
	if len(first) != 4 {
		t.Fatalf("there are the certificates of %v", first)
	}
	begin := time.Now()
	for round, before := 1, first; round <= 2; round++ {
		var now map[string]time.Time
		await.Within(t, fmt.Sprintf("renewed %d times", round), 90*time.Second, func() error {
			now = w.ends(t)
			var old []string
			for name, end := range before {
				if !now[name].After(end) {
					old = append(old, name)
				}
			}
			if len(old) > 0 {
				return fmt.Errorf("not by %s", strings.Join(old, ", "))
			}
			return nil
		})
		before = now
	}
	// The first certificates are over by now, and what began under them goes on.
	await.Within(t, "past the end of the first certificates", 90*time.Second, func() error {
		for name, end := range first {
			if name != "server" && time.Now().Before(end.Add(2*time.Second)) {
				return fmt.Errorf("that of %s lasts until %v", name, end)
			}
		}
		return nil
	})
	t.Logf("everybody renewed twice within %v", time.Since(begin).Round(time.Second))
	wantWhole(t, tr)
	after := w.connect(t)
	after.Client.Close()
	after.Service.Close()
}

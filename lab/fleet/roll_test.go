package fleet

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
)

// caStatus is what "ca status" says.
type caStatus struct {
	Issuing     string   `json:"issuing"`
	Behind      []string `json:"behind"`
	Authorities []struct {
		Key string `json:"key"`
	} `json:"authorities"`
}

func (w *world) ca(t *testing.T, args ...string) (s caStatus) {
	t.Helper()
	if err := json.Unmarshal([]byte(w.Server.Run(append(append([]string{"ca"}, args...), "--json")...)), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// F45: one CA takes the place of another under a running stream. A portal that was away meanwhile comes back with a
// certificate of the old one.
func TestCARollsOverUnderAStream(t *testing.T) {
	// Who has a certificate of the old CA renews it within a tenth of its life, or an hour.
	w := newWorld(t, daemon.Set("certificate_life", "10m"))
	away := w.Join(w.lab.Public("away"))
	away.Stop()
	tr := w.run(t)
	old := w.ca(t, "status").Issuing
	begin := time.Now()
	both := w.ca(t, "roll")
	if both.Issuing == old || len(both.Authorities) != 2 {
		t.Fatalf("after the roll-over: %+v", both)
	}
	await.Within(t, "renewed by who is connected", 3*time.Minute, func() error {
		if behind := w.ca(t, "status").Behind; len(behind) != 1 || behind[0] != "portal away" {
			return fmt.Errorf("behind are %q", behind)
		}
		return nil
	})
	t.Logf("all that were connected had certificates of the new CA within %v", time.Since(begin).Round(time.Millisecond))
	away.Start() // with a certificate of the old CA, and knowing nothing of the new one
	await.Within(t, "renewed by who was away", 3*time.Minute, func() error {
		if behind := w.ca(t, "status").Behind; len(behind) > 0 {
			return fmt.Errorf("behind are %q", behind)
		}
		return nil
	})
	last := w.ca(t, "drop", old)
	if len(last.Authorities) != 1 || last.Issuing != both.Issuing {
		t.Fatalf("after the old one was dropped: %+v", last)
	}
	more := w.connect(t)
	more.Client.Close()
	more.Service.Close()
	wantWhole(t, tr)
	for _, p := range []interface{ Restart() }{w.laptop, w.factory, away} { // they know it for good
		p.Restart()
	}
	w.laptop.WaitUp("out")
}

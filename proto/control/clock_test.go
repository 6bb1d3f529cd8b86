package control

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/clock"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// TestClocksOfDevices is the table of T24: certificates are valid from an hour
// before now to 30 days after, the programs were built 60 days ago. Where a
// device connects, it knows the time afterwards, unless its own clock is ahead.
func TestClocksOfDevices(t *testing.T) {
	built := testNow.AddDate(0, 0, -60)
	for _, tt := range []struct {
		name         string
		device, told time.Time
		want         string        // of the refusal
		off          time.Duration // of the device's time afterwards
	}{
		{"right", testNow, testNow, "", 0},
		{"1970", time.Unix(0, 0), testNow, "", 0},
		{"a day before the build", built.AddDate(0, 0, -1), testNow, "", 0},
		{"a minute before the certificates begin", testNow.Add(-61 * time.Minute), testNow, "", 0},
		{"an hour ahead", testNow.Add(time.Hour), testNow, "", time.Hour},
		{"ten years ahead", testNow.AddDate(10, 0, 0), testNow, "clock here says 2036-11-22T12:00:00Z, 86952h0m0s after its end: renew it or set the clock", 10 * 365 * 24 * time.Hour},
		{"a second after the end", testNow.AddDate(0, 0, 30).Add(time.Second), testNow, "clock here says", 30 * 24 * time.Hour},

		{"1970, and a server that says so too", time.Unix(0, 0), time.Unix(3600, 0), "its clock is wrong, or ours is", -60 * 24 * time.Hour},
		{"1970, and a server that lies ten years", time.Unix(0, 0), testNow.AddDate(10, 0, 0), "its clock is wrong, or ours is", -60 * 24 * time.Hour},
		{"right, and a server that lies ten years", testNow, testNow.AddDate(10, 0, 0), "", 0},
		{"right, and a server in 1970", testNow, time.Unix(0, 0), "", 0},
		{"right, and a server that is a day ahead", testNow, testNow.AddDate(0, 0, 1), "", 24 * time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			own, err := clock.Open(filepath.Join(t.TempDir(), "clock"), built, func() time.Time { return tt.device })
			if err != nil {
				t.Fatal(err)
			}
			ca := newAuthority(t)
			r := roles{ca.issueTo(t, identity.Portal, "p", own.Now), ca.issue(t, identity.Server, "s")}
			ours, theirs := tcpPipe(t)
			served := make(chan struct{})
			go func() {
				defer close(served)
				a, err := Accept(t.Context(), theirs, r.serverTLS())
				if err != nil {
					return
				}
				// As a server says it, the rest being nobody's matter here.
				a.in.source.Write(wire.AppendMessage(nil, wire.Welcome{Version: wire.ControlVersion, Time: uint64(tt.told.Unix())}))
			}()
			d := r.dialer()
			d.Told = own.Told
			_, _, err = d.greet(t.Context(), ours)
			ours.Close()
			<-served
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("greeted: %v; want an error with %q", err, tt.want)
			}
			slack := time.Minute
			if tt.off.Abs() > 24*time.Hour {
				slack = 4 * 24 * time.Hour // for leap years
			}
			if off := own.Now().Sub(testNow); (off - tt.off).Abs() > slack {
				t.Errorf("the device's time is %v afterwards, want about %v", own.Now(), testNow.Add(tt.off))
			}
		})
	}
}

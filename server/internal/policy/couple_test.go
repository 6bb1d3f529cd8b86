package policy

import (
	"strings"
	"testing"
	"time"
)

const pinned = `domain = "example.org"
groups = {engineers = ["ann", "bo"]}

[[forward]]
name = "web"
from = "engineers tcp://127.0.0.1:80"
to = "plant tcp://10.0.0.5:80"
relay = "relay-1"
until = 2026-12-01T00:00:00Z

[[forward]]
name = "ssh"
from = "plant tcp://127.0.0.1:22"
to = "ann tcp://127.0.0.1:22"
relay = "relay-1"
until = 2026-12-31T00:00:00Z

[[forward]]
name = "free"
from = "ann tcp://127.0.0.1:81"
to = "plant tcp://10.0.0.5:81"

[[forward]]
name = "other"
from = "cy tcp://127.0.0.1:81"
to = "plant tcp://10.0.0.5:81"
`

func TestPinHoldsForAllForwardsOfAPair(t *testing.T) {
	p := parse(t, pinned)
	day := func(n int) time.Time { return time.Date(2026, 12, n, 0, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		a, b string
		at   time.Time
		want string
	}{
		{"ann", "plant", now, "relay-1"},
		{"plant", "ann", now, "relay-1"},
		{"plant", "bo", now, "relay-1"},
		{"ann", "bo", now, ""},
		{"cy", "plant", now, ""},
		{"bo", "plant", day(1), ""}, // its forward has ended
		{"ann", "plant", day(30), "relay-1"},
		{"ann", "plant", day(31), ""},
	} {
		if got := p.Pin(c.a, c.b, c.at); got != c.want {
			t.Errorf("%s and %s at %v: pinned to %q, want %q", c.a, c.b, c.at, got, c.want)
		}
	}
	forever := parse(t, strings.Replace(pinned, "until = 2026-12-31T00:00:00Z", "", 1))
	if got := forever.Pin("ann", "plant", day(31)); got != "relay-1" {
		t.Errorf("the forward without an end pins to %q", got)
	}
}

func TestUnknownRelayIsAWarning(t *testing.T) {
	p := parse(t, pinned)
	enrolled := keys("ann", "bo", "cy", "plant")
	if err := p.CheckNames("example.org", enrolled, func(name string) bool { return name == "relay-1" }); err != nil || len(p.Warnings) > 0 {
		t.Errorf("%v, warnings %q", err, p.Warnings)
	}
	if err := p.CheckNames("example.org", enrolled, noRelay); err != nil {
		t.Fatal(err)
	}
	const want = `policy.toml:8:9: no relay "relay-1" is enrolled: portals that must meet there cannot meet`
	if len(p.Warnings) != 1 || !strings.HasPrefix(p.Warnings[0], want) {
		t.Errorf("warnings %q, want %q once", p.Warnings, want)
	}
}

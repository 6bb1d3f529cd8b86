package faults

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/stage"
)

// What an operator has allowed for a time, and what has hours, ends at both portals at its second, though there is no
// server any more. What is granted for longer goes on, over the same tunnel.
func TestWhatIsAllowedForATimeEndsWithoutAServer(t *testing.T) {
	stage.EnterIdle(t)
	const length = 20 * time.Second
	w := newWorld(t)
	always := w.other()
	request := forward{"request", fmt.Sprintf("tcp://127.0.0.1:%d", entryPort), w.service("tcp", echoPort)}
	hours := forward{"hours", fmt.Sprintf("tcp://127.0.0.1:%d", entryPort+100), w.service("tcp", echoPort+100)}
	// Until the next minute after what is allowed has ended.
	over := time.Now().UTC().Add(length + 10*time.Second).Truncate(time.Minute).Add(time.Minute)
	open := over.Add(-12 * time.Hour)
	timed := fmt.Sprintf("hours = \"%s-%s\"\n", open.Format("15:04"), over.Format("15:04"))
	w.Apply(w.policy(always) + w.policy(hours) + timed + w.policy(request) + "on_request = \"1h\"\n")
	w.laptop.WaitUp(always.name)
	w.laptop.WaitUp(hours.name)
	wantRefused(t, w.laptop.Host(), local(entryPort))

	out := w.Server.Run("allow", request.name, "--for", length.String(), "--by", "ann", "--only", "laptop", "--json")
	var allowed struct {
		Openings []struct {
			Until time.Time `json:"until"`
			By    string    `json:"by"`
		} `json:"openings"`
	}
	if err := json.Unmarshal([]byte(out), &allowed); err != nil || len(allowed.Openings) != 1 || allowed.Openings[0].By != "ann" {
		t.Fatalf("allowed: %s, %v", out, err)
	}
	until := allowed.Openings[0].Until
	w.laptop.WaitUp(request.name)
	stays := w.connect(otherEntry, w.plc.Listen(otherPort))
	goes := w.connect(entryPort, w.plc.Listen(echoPort))
	closes := w.connect(entryPort+100, w.plc.Listen(echoPort+100))
	for _, p := range []pair{stays, goes, closes} {
		for _, conn := range []net.Conn{p.client, p.service} {
			if err := conn.SetDeadline(over.Add(await.Patience)); err != nil {
				t.Fatal(err)
			}
		}
	}

	w.Server.Kill()
	waitServer(t, w.laptop, false)
	waitServer(t, w.factory, false)
	for _, end := range []struct {
		what string
		pair pair
		at   time.Time
		port uint16
	}{{"what was allowed", goes, until, entryPort}, {"what has hours", closes, over, entryPort + 100}} {
		await.Passing(t, time.Until(end.at.Add(-time.Second)))
		end.pair.alive(t)
		end.pair.reset(t)
		if late := time.Since(end.at); late < 0 || late > 2*time.Second {
			t.Errorf("%s was cut %v after its end", end.what, late)
		}
		wantRefused(t, w.laptop.Host(), local(end.port))
		stays.alive(t)
	}

	w.Server.Start()
	waitServer(t, w.laptop, true)
	stays.alive(t)
	if list := w.Server.Run("allow", "--list"); strings.Contains(list, request.name) {
		t.Errorf("the server still allows it:\n%s", list)
	}
	wantRefused(t, w.laptop.Host(), local(entryPort))
	for _, d := range w.Server.Audit() {
		if d.Event == "allow" && d.Forward == request.name && d.Portal == "laptop" && strings.Contains(d.Detail, "by ann") {
			return
		}
	}
	t.Error("the audit log does not say who allowed it")
}

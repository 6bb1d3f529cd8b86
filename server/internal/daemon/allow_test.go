package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/audit"
)

// What is allowed on request reaches both portals at once, as a grant that carries its
// end, and is the same after a restart of the server.
func TestWhatIsAllowedIsPushedAtOnceAndOutlivesTheServer(t *testing.T) {
	r := newRig(t, "ann", "plant")
	request := applying([]string{"shell: ann tcp://127.0.0.1:2222 -> plant tcp://10.0.0.5:22"})
	request.Source += "on_request = \"8h\"\n"
	if err := local.Call(t.Context(), r.cfg.Socket, admin.CommandPolicy, request, nil); err != nil {
		t.Fatal(err)
	}
	plant, ann := r.portal("plant"), r.portal("ann")
	r.grants(plant, 0)
	r.grants(ann, 0)
	ask := func(a admin.AllowRequest) (result admin.AllowResult) {
		t.Helper()
		if err := local.Call(t.Context(), r.cfg.Socket, admin.CommandAllow, a, &result); err != nil {
			t.Fatal(err)
		}
		return result
	}
	until := ask(admin.AllowRequest{Forward: "shell", For: "2h", By: "cy"}).Openings[0].Until
	if left := time.Until(until); left > 2*time.Hour || left < 2*time.Hour-time.Minute {
		t.Errorf("it is allowed for %v", left)
	}
	var id wire.GrantID
	for _, p := range []*peer[wire.ToPortal, wire.FromPortal]{plant, ann} {
		g := r.verify(next[wire.PutGrant](p))
		if !g.End.Equal(until) || g.Forward != "shell" {
			t.Errorf("%s: %+v", p.name, g.Permission)
		}
		id = g.ID()
	}
	plant.leave()
	ann.leave()
	r.shutdown()
	r.start()
	plant, ann = r.portal("plant"), r.portal("ann")
	for _, p := range []*peer[wire.ToPortal, wire.FromPortal]{plant, ann} {
		if held, _ := r.grants(p, 1); held["shell"].ID() != id {
			t.Errorf("%s: another grant after a restart: %+v", p.name, held)
		}
	}
	next[wire.PeerState](plant) // ann has come
	ask(admin.AllowRequest{Forward: "shell", By: "dee", End: true})
	for _, p := range []*peer[wire.ToPortal, wire.FromPortal]{plant, ann} {
		if m := next[wire.RemoveGrant](p); m.Grant != id || m.Reason != wire.ReasonGrantRemoved {
			t.Errorf("%s: %+v", p.name, m)
		}
	}
	ended := r.records("the end of what was allowed", func(rec audit.Record) bool { return rec.Event == "allow" && rec.Answer == audit.Ended })
	granted := r.records("what was allowed", func(rec audit.Record) bool { return rec.Event == "allow" && rec.Answer == audit.Granted })
	if len(granted) != 1 || granted[0].Forward != "shell" || !strings.Contains(granted[0].Detail, "by cy: 1 grants added") {
		t.Errorf("granted: %+v", granted)
	}
	if len(ended) != 1 || !strings.Contains(ended[0].Detail, "by cy, ended by dee: 1 grants removed") {
		t.Errorf("ended: %+v", ended)
	}

	// What the policy does not say, and what nobody answers for, is refused and noted.
	for _, a := range []admin.AllowRequest{
		{Forward: "shell", For: "9h", By: "cy"}, {Forward: "other", For: "1h", By: "cy"}, {Forward: "shell", For: "1h"}, {Forward: "shell", For: "1h", By: "cy\x1b[2J"},
		{Forward: "shell", For: "1h", By: strings.Repeat("y", 65)}, {Forward: "shell", For: "-1h", By: "cy"}, {Forward: "shell", By: "cy"}, {Forward: "shell", By: "cy", End: true},
	} {
		if err := local.Call(t.Context(), r.cfg.Socket, admin.CommandAllow, a, nil); err == nil {
			t.Errorf("%+v is taken", a)
		}
	}
	r.until("each refusal is in the audit log", func() bool {
		return len(r.records("refusals", func(rec audit.Record) bool { return rec.Event == "allow" && rec.Answer == audit.Refused })) == 8
	})
	if n := len(r.log.all("\x1b")); n > 0 {
		t.Errorf("%d lines of the log command the terminal", n)
	}
}

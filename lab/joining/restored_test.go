package joining

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
)

// TestRestoredStateIsReportedByPortalsAndRelays: the server's state is put back to what it was before a revocation. Both
// kinds of peers say so, go on refusing what was revoked, and the server says it too (T35).
func TestRestoredStateIsReportedByPortalsAndRelays(t *testing.T) {
	m := newMachine(t, nil)
	state := filepath.Join(m.folder("server"), "state.db")
	peers := residents[1:]
	m.server.stop()
	snapshot, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	m.startServer("server")
	m.ask("revoke", "portal", "bo", "--unknown")
	for _, r := range peers {
		await.Until(t, r.folder+" knows of the revocation", func() error {
			if s := m.identity(r); s.Revocations != 1 {
				return errors.New(s.text)
			}
			return nil
		})
	}
	m.server.stop()
	if err := os.WriteFile(state, snapshot, 0o600); err != nil {
		t.Fatal(err)
	}
	m.startServer("server")
	m.server.waitLog("epoch regression")
	for _, r := range peers {
		await.Within(t, r.folder+" reports the regression", time.Minute, func() error {
			out, err := m.output(r.role, nil, "status", "--wide", "--config", m.config(r.folder))
			if !strings.Contains(out, "epoch regression") {
				return errors.Join(errors.New(out), err)
			}
			return nil
		})
		if s := m.identity(r); s.Revocations != 1 {
			t.Errorf("%s has forgotten: %s", r.folder, s.text)
		}
		m.running[r.folder].waitLog("epoch regression")
	}
	const said = "this state is an old one"
	if out := m.ask("status", "--wide"); !strings.Contains(out, said) {
		t.Errorf("the server's status does not say that it has lost revocations:\n%s", out)
	}
	// Revoked again, all is well again.
	m.ask("revoke", "portal", "bo", "--unknown")
	if out := m.ask("status", "--wide"); strings.Contains(out, said) {
		t.Errorf("the server's status goes on about revocations:\n%s", out)
	}
	for _, r := range peers {
		await.Within(t, r.folder+" is content", time.Minute, func() error {
			out, err := m.output(r.role, nil, "status", "--wide", "--config", m.config(r.folder))
			if err != nil || strings.Contains(out, "epoch regression") {
				return errors.Join(errors.New(out), err)
			}
			return nil
		})
	}
}

// identityStatus is what a portal or relay says of its identity.
type identityStatus struct {
	Revocations uint64 `json:"revocations_epoch"`
	text        string
}

func (m *machine) identity(r resident) identityStatus {
	m.t.Helper()
	var s struct{ Identity identityStatus }
	out, err := m.output(r.role, nil, "status", "--json", "--config", m.config(r.folder))
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	s.Identity.text = out
	if err != nil {
		s.Identity.text = err.Error()
	}
	return s.Identity
}

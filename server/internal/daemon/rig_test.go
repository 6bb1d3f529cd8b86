package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/hub"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// rig is a running server with a CA of its own, and the identities that were
// made with it.
type rig struct {
	t           testing.TB
	cfg         *config.Config
	log         *logLines
	stop        context.CancelFunc
	ended       chan error
	flush       func() // of the log
	credentials map[string]*identity.Credentials
}

// newRig starts a server on loopback. Names that begin with "relay" become
// relays, all others portals.
func newRig(t testing.TB, names ...string) *rig {
	t.Helper()
	// A socket's path must be short; t.TempDir's need not be.
	dir, err := os.MkdirTemp("", "np")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	dir = filepath.Join(dir, "s")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	if err := admin.MakeServer(dir, "example.org", address, address); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(filepath.Join(dir, config.ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, cfg: cfg, credentials: make(map[string]*identity.Credentials)}
	r.start()
	t.Cleanup(r.shutdown)
	for _, n := range names {
		r.issue(n, false)
	}
	return r
}

func (r *rig) start() {
	r.t.Helper()
	r.log = &logLines{arrived: make(chan struct{}, 1)}
	log, flush, err := command.Log{Level: "debug"}.Logger(r.log)
	if err != nil {
		r.t.Fatal(err)
	}
	r.flush = flush
	ctx, cancel := context.WithCancel(context.Background())
	r.stop, r.ended = cancel, make(chan error, 1)
	go func() { r.ended <- Run(ctx, r.cfg, log, nil) }()
	r.log.wait(r.t, "msg=listening")
}

func (r *rig) shutdown() {
	r.t.Helper()
	r.stop()
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Errorf("server ended with: %v", err)
		}
		r.ended <- nil
		r.flush()
	case <-time.After(patience):
		r.t.Fatal("server does not stop")
	}
}

func roleOf(name string) identity.Role {
	if strings.HasPrefix(name, "relay") {
		return identity.Relay
	}
	return identity.Portal
}

// issue enrols a portal or relay as the command does, and keeps its
// credentials.
func (r *rig) issue(name string, replace bool) {
	r.t.Helper()
	key, err := ca.NewKey()
	if err != nil {
		r.t.Fatal(err)
	}
	id, err := identity.New(r.cfg.Domain, roleOf(name), name)
	if err != nil {
		r.t.Fatal(err)
	}
	csr, err := identity.NewRequest(id, key)
	if err != nil {
		r.t.Fatal(err)
	}
	request := admin.IssueRequest{Role: roleOf(name), Name: name, Request: csr, Replace: replace}
	if request.Role == identity.Relay {
		request.Addresses = []string{"192.0.2.7", "2001:db8::7"}
	}
	var issued admin.Issued
	if err := local.Call(r.t.Context(), r.cfg.Socket, admin.CommandIssue, request, &issued); err != nil {
		r.t.Fatal(err)
	}
	dir := r.t.TempDir()
	in := func(n string) string { return filepath.Join(dir, n) }
	for _, err := range []error{
		identity.SaveKey(in("key.pem"), key),
		os.WriteFile(in("cert.pem"), []byte(issued.Certificate), 0o600),
		os.WriteFile(in("ca.pem"), []byte(issued.CA), 0o600),
	} {
		if err != nil {
			r.t.Fatal(err)
		}
	}
	c, err := identity.Load(in("cert.pem"), in("key.pem"), in("ca.pem"), request.Role, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.credentials[name] = c
}

// apply puts a policy of forwards in force. Each is "NAME: FROM -> TO".
func (r *rig) apply(forwards ...string) admin.PolicyResult {
	r.t.Helper()
	var result admin.PolicyResult
	if err := local.Call(r.t.Context(), r.cfg.Socket, admin.CommandPolicy, applying(forwards), &result); err != nil {
		r.t.Fatal(err)
	}
	if !result.Applied {
		r.t.Fatalf("not applied: %+v", result)
	}
	return result
}

// applyStopped does the same with the state of a server that does not run.
func (r *rig) applyStopped(forwards ...string) {
	r.t.Helper()
	service, err := admin.Open(r.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Fatal(err)
	}
	defer service.Close()
	if result, err := service.Policy(context.Background(), applying(forwards)); err != nil || !result.Applied {
		r.t.Fatalf("not applied: %+v, %v", result, err)
	}
}

func applying(forwards []string) admin.PolicyRequest {
	text := "domain = \"example.org\"\n"
	for _, f := range forwards {
		name, ends, _ := strings.Cut(f, ": ")
		from, to, _ := strings.Cut(ends, " -> ")
		text += fmt.Sprintf("[[forward]]\nname = %q\nfrom = %q\nto = %q\n", name, from, to)
	}
	return admin.PolicyRequest{Step: admin.PolicyApply, File: "policy.toml", Source: text}
}

// records returns all audit records for which keep is true, once there is at
// least one.
func (r *rig) records(what string, keep func(audit.Record) bool) []audit.Record {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		list, err := audit.Tail(r.cfg.State, 10000, time.Time{})
		if err != nil {
			r.t.Fatal(err)
		}
		var kept []audit.Record
		for _, rec := range list {
			if keep(rec) {
				kept = append(kept, rec)
			}
		}
		if len(kept) > 0 {
			return kept
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("no audit record: %s; there are %+v", what, list)
		}
		r.log.pause()
	}
}

// wantNobody waits until the server knows of no connection.
func (r *rig) wantNobody() {
	r.t.Helper()
	r.until("nobody is connected", func() bool {
		var portals []hub.PortalView
		var relays []hub.RelayView
		err := errors.Join(
			local.Call(r.t.Context(), r.cfg.Socket, CommandPortals, nil, &portals),
			local.Call(r.t.Context(), r.cfg.Socket, CommandRelays, nil, &relays),
		)
		return err == nil &&
			!slices.ContainsFunc(portals, func(p hub.PortalView) bool { return p.Online }) &&
			!slices.ContainsFunc(relays, func(v hub.RelayView) bool { return v.Online })
	})
}

// until waits for a condition of the server that no message tells of.
func (r *rig) until(what string, done func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !done(); r.log.pause() {
		if time.Now().After(deadline) {
			r.t.Fatalf("it does not come: %s", what)
		}
	}
}

// logLines collects the server's log.
type logLines struct {
	mu      sync.Mutex
	lines   []string
	arrived chan struct{} // capacity 1
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	l.lines = append(l.lines, string(b))
	l.mu.Unlock()
	select {
	case l.arrived <- struct{}{}:
	default:
	}
	return len(b), nil
}

// pause waits for the next line, or a moment.
func (l *logLines) pause() {
	select {
	case <-l.arrived:
	case <-time.After(5 * time.Millisecond):
	}
}

func (l *logLines) all(text string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

func (l *logLines) wait(t testing.TB, text string) string {
	t.Helper()
	for deadline := time.Now().Add(patience); ; l.pause() {
		if found := l.all(text); len(found) > 0 {
			return found[0]
		}
		if time.Now().After(deadline) {
			t.Fatalf("no line with %q in the log:\n%s", text, strings.Join(l.all(""), ""))
		}
	}
}

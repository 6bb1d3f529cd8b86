package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/metrics/metricstest"
	"github.com/netport/netport/proto/metrics/scrape"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/registry"
)

// measured starts the server anew, so that it serves its metrics, and returns where.
func (r *rig) measured() (address string) {
	r.t.Helper()
	r.shutdown()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	address = l.Addr().String()
	l.Close()
	r.cfg.Metrics = scrape.Address{Network: "tcp", Address: address}
	r.start()
	return address
}

// TestMetricsAreTrue has portals come, meet, fight for a name and go, and strangers
// refused.
func TestMetricsAreTrue(t *testing.T) {
	r := newRig(t, "ann", "bo", "plant", "relay-1")
	address := r.measured()
	r.apply(web)
	relay, plant, ann := r.relay("relay-1"), r.portal("plant"), r.portal("ann")
	grants, _ := r.grants(ann, 1)
	r.grants(plant, 1)
	next[wire.PeerState](plant)
	ask := func(request uint32) {
		ann.conn.Send(wire.OpenSession{Request: request, Peer: "plant", Grant: grants["web"].ID()})
	}
	ask(1)
	create := next[wire.CreateSession](relay)
	relay.conn.Send(wire.SessionReady{ID: create.ID, TCP: 20001})
	next[wire.Session](ann)
	next[wire.Session](plant)
	const refused = 3
	for i := range uint32(refused) {
		ann.conn.Send(wire.OpenSession{Request: 10 + i, Peer: "bo", Grant: grants["web"].ID()})
		next[wire.Refused](ann)
	}

	// A second machine with ann's certificate may take over once, and not again at once.
	second := r.portal("ann")
	ann.wantGoodbye(wire.ReasonReplaced)
	r.portal("ann").wantGoodbye(wire.ReasonBusy)

	// Strangers: no TLS, and a certificate that another CA has made.
	c := r.raw().(*net.TCPConn)
	c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	wantClosed(t, c)
	forged := identitytest.New(t).Credentials(identity.Portal, "ann")
	cfg := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{identity.ProtocolControl}, Certificates: []tls.Certificate{forged.Certificate()}, MinVersion: tls.VersionTLS13}
	stranger, err := tls.Dial("tcp", r.cfg.Address, cfg)
	if err == nil {
		stranger.SetReadDeadline(time.Now().Add(patience))
		if _, err = stranger.Read(make([]byte, 1)); err == nil {
			t.Fatal("a forged certificate is answered")
		}
		stranger.Close()
	}

	want := map[string]float64{
		`netport_server_portals_connected{transport="tcp"}`:                                     2,
		`netport_server_portals_connected{transport="udp"}`:                                     0,
		`netport_server_relays_connected`:                                                       1,
		`netport_server_sessions{state="open"}`:                                                 1,
		`netport_server_sessions{state="asking"}`:                                               0,
		`netport_server_grants`:                                                                 1,
		`netport_server_policy_version`:                                                         2,
		`netport_server_decisions_total{event="policy",answer="done",reason=""}`:                1,
		`netport_server_decisions_total{event="session",answer="granted",reason=""}`:            1,
		`netport_server_decisions_total{event="session",answer="refused",reason="not_granted"}`: refused,
		`netport_server_decisions_total{event="connect",answer="refused",reason="busy"}`:        1,
		`netport_server_connections_refused_total{reason="not_tls"}`:                            1,
		`netport_server_connections_refused_total{reason="certificate"}`:                        1,
		`netport_server_identity_conflicts_total{role="portal"}`:                                1,
		`netport_server_identity_conflicts_total{role="relay"}`:                                 0,
		`netport_server_certificates{role="portal",state="valid"}`:                              3,
		`netport_server_certificates{role="portal",state="expired"}`:                            0,
		`netport_server_certificates{role="relay",state="valid"}`:                               1,
		`netport_server_relay_ready{relay="relay-1"}`:                                           1,
		`netport_server_audit_records_missing`:                                                  0,
		`netport_server_certificate_expiry_timestamp_seconds`:                                   float64(r.serverCertificate().Unix()),
	}
	text := metricstest.Get(t, address)
	for deadline := time.Now().Add(patience); metricstest.Read(t, text)[`netport_server_connections_refused_total{reason="certificate"}`] != 1 && time.Now().Before(deadline); {
		text = metricstest.Get(t, address)
	}
	page := metricstest.Read(t, text)
	page.Want(t, want)
	if n := page[`netport_server_store_commit_seconds_count`]; n < 1 {
		t.Errorf("%v commits, and a policy was applied", n)
	}
	first := page[`netport_server_certificates_earliest_expiry_timestamp_seconds{role="portal"}`]
	if ends := float64(r.credentials["ann"].Leaf().NotAfter.Unix()); first > ends || first < ends-60 {
		t.Errorf("the first certificate ends at %v, ann's at %v", first, ends)
	}
	metricstest.Lint(t, text)

	second.leave()
	r.until("ann is gone", func() bool {
		p := metricstest.Read(t, metricstest.Get(t, address))
		return p[`netport_server_portals_connected{transport="tcp"}`] == 1 && p[`netport_server_disconnects_total{reason="peer_said_shutting_down",role="portal"}`] == 1
	})
}

func (r *rig) serverCertificate() time.Time {
	r.t.Helper()
	certs, err := identity.LoadCertificates(r.cfg.Certificate)
	if err != nil {
		r.t.Fatal(err)
	}
	return certs[0].NotAfter
}

func TestCertificateThatEndsIsCountedAsEnding(t *testing.T) {
	now := time.Now()
	for left, want := range map[time.Duration]string{30: certificateValid, 6: certificateValid, 4: certificateEnding, 1: certificateEnding, -1: certificateExpired} {
		end := now.Add(left * time.Hour)
		if got := certificateState(registry.Enrolment{Issued: end.Add(-30 * time.Hour), NotAfter: end}, now); got != want {
			t.Errorf("%v hours left of 30: %s, want %s", int(left), got, want)
		}
	}
}

func TestRefusalsHaveAWord(t *testing.T) {
	for want, err := range map[string]error{
		"revoked":           &certificateError{fmt.Errorf("peer: %w", identity.ErrRevoked)},
		"certificate":       &certificateError{errors.New("expired")},
		"not_tls":           tls.RecordHeaderError{Msg: "first record"},
		"malformed_message": fmt.Errorf("x: %w", wire.ErrMalformed),
		"timed_out":         context.DeadlineExceeded,
		"closed":            fmt.Errorf("read: %w", net.ErrClosed),
		"refused_by_peer":   &net.OpError{Op: "remote error", Err: tls.AlertError(42)},
		"tls":               errors.New("tls: no common version"),
	} {
		if got := refusedFor(err); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}

package daemon

import (
	"time"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/keeper"
	"github.com/netport/netport/proto/metrics"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/registry"
)

// metrics returns the page of what the server has counted. It changes nothing and
// costs what "status" does.
func (d *daemon) metrics(cfg *config.Config) *metrics.Page {
	p := metrics.NewPage("server", command.Version, d.started)
	s := d.status(cfg, d.service, d.started)
	d.hub.Metrics(p)
	keeper.Expiry(p, d.own.credentials)
	p.Gauge("policy_version", "Version of the policy in force.").Set(float64(s.Policy))
	p.Gauge("policy_applied_timestamp_seconds", "When it was applied, in Unix time.").Time(s.Applied)
	p.Gauge("grants", "Grants of the policy in force.").Set(float64(s.Grants))
	p.Gauge("grants_unsigned", "Grants that wait for the operator's signature (strict mode).").Set(float64(s.Unsigned))
	p.Gauge("authorities_unsigned", "Whether the list of CAs waits for the operator's signature (strict mode).").Is(s.UnsignedAuthorities)
	p.Gauge("enrolments_waiting", "Devices that wait for an operator's approval.").Set(float64(s.Waiting))
	p.Gauge("certificates_waiting", "Certificates that wait for a CA key that is elsewhere (ca pending).").Set(float64(s.Pending))
	p.Gauge("certificates_waiting_timestamp_seconds", "Since when the first of them waits, in Unix time.").Time(s.PendingSince)
	p.Gauge("revocations_epoch", "How many revocations there are: all of them up to this number.").Set(float64(d.service.Registry.Epoch()))
	p.Gauge("audit_records_missing", "Audit records that could not be written, and are not yet noted as lost.").Set(float64(s.Missing))
	p.Histogram("store_commit_seconds", "How long it took to have a change of the state on disk.", d.service.Commits.Snapshot())
	p.Counter("connections_refused_total", "Connections that were not let in, by why: their handshakes failed.").AddAll(d.refused.All(), "reason")
	p.Counter("connections_handed_over_total", "Connections that were handed over to the relay on this machine (hand_over).").Add(d.handed.Load())
	d.certificateMetrics(p)
	decisions := p.Counter("decisions_total", "Decisions, as in the audit log: of sessions, enrolments, renewals, revocations, policies and the like.")
	for k, n := range d.service.Audit.Decisions() {
		decisions.Add(n, "event", metrics.Word(k.Event), "answer", metrics.Word(k.Answer), "reason", metrics.Word(k.Reason))
	}
	return p
}

// The states of a certificate that was issued.
const (
	certificateValid   = "valid"
	certificateEnding  = "ending" // five sixths of its life are over, and it was not renewed
	certificateExpired = "expired"
)

// certificateMetrics adds how the certificates of all portals and relays are: not one
// series for each, but how many there are in each state, and which ends first.
func (d *daemon) certificateMetrics(p *metrics.Page) {
	count := p.Gauge("certificates", "Certificates of enrolled portals and relays: valid, ending (five sixths of their lives are over) or expired.")
	first := p.Gauge("certificates_earliest_expiry_timestamp_seconds", "When the first of those that have not expired ends, in Unix time.")
	now := time.Now()
	add := func(role identity.Role, list []registry.Enrolment) {
		states := map[string]int{certificateValid: 0, certificateEnding: 0, certificateExpired: 0}
		var earliest time.Time
		for _, e := range list {
			state := certificateState(e, now)
			states[state]++
			if state != certificateExpired && !e.NotAfter.IsZero() && (earliest.IsZero() || e.NotAfter.Before(earliest)) {
				earliest = e.NotAfter
			}
		}
		for state, n := range states {
			count.Set(float64(n), "role", string(role), "state", state)
		}
		first.Time(earliest, "role", string(role))
	}
	var portals, relays []registry.Enrolment
	for _, v := range d.service.Registry.Portals() {
		portals = append(portals, v.Enrolment)
	}
	for _, v := range d.service.Registry.Relays() {
		relays = append(relays, v.Enrolment)
	}
	add(identity.Portal, portals)
	add(identity.Relay, relays)
}

func certificateState(e registry.Enrolment, now time.Time) string {
	switch {
	case e.Issued.IsZero(): // of a time before ends were kept
		return certificateValid
	case now.After(e.NotAfter):
		return certificateExpired
	case !now.Before(e.Issued.Add(e.NotAfter.Sub(e.Issued) / 6 * 5)):
		return certificateEnding
	}
	return certificateValid
}

package keeper

import (
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/metrics"
)

// Metrics adds how the credentials are to a page.
func (k *Keeper) Metrics(p *metrics.Page) {
	s := k.Status()
	Expiry(p, k.credentials)
	p.Gauge("certificate_renewal_failed", "Whether the last attempt to renew the certificate has failed.").Is(s.Renewal != "")
	p.Gauge("certificate_renewal_waits", "Whether the next certificate waits for an operator to sign it.").Is(!s.Waits.IsZero())
	p.Gauge("revocations_epoch", "How many revocations are held: all of them up to this number.").Set(float64(s.Revocations))
	p.Gauge("revocations_lost", "Whether the server has lost revocations that are held here.").Is(s.Regression != nil)
	p.Gauge("authorities_version", "Version of the list of trusted CAs; 0: those of the CA file.").Set(float64(s.Authorities))
	p.Gauge("clock_offset_seconds", "How far the clock of this machine is ahead of the server's.").Set(s.Clock.Round(time.Millisecond).Seconds())
}

// Expiry adds when certificates end: a daemon's own, and those of the CAs that it
// trusts.
func Expiry(p *metrics.Page, c *identity.Credentials) {
	p.Gauge("certificate_expiry_timestamp_seconds", "When the daemon's own certificate ends, in Unix time.").Time(c.Leaf().NotAfter)
	cas := p.Gauge("ca_certificate_expiry_timestamp_seconds", "When the certificate of a trusted CA ends, in Unix time, by the first digits of its key.")
	for _, ca := range c.Authorities() {
		cas.Time(ca.NotAfter, "ca", identity.HashKey(ca).String())
	}
}

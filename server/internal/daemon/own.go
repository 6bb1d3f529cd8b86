package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/keeper"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/pending"
	"github.com/netport/netport/server/internal/registry"
)

const (
	// lookTime is how often the server looks after its own certificate at least;
	// one that lasts for minutes is looked at more often.
	lookTime = time.Minute
	// remindTime is how often it is logged that certificates wait for an operator.
	remindTime = 12 * time.Hour
	// patienceTime is for how long a certificate may wait for an operator before it is
	// logged again.
	patienceTime = 24 * time.Hour
)

// own is what the server proves itself with, and whom it trusts. Run keeps it
// current: every handshake takes what is there at its moment, so that no connection
// that stands notices.
type own struct {
	// Constant.
	cfg         *config.Config
	service     *admin.Service
	log         *slog.Logger
	credentials *identity.Credentials
	wake        chan struct{} // capacity 1: another authority issues, or an operator has signed

	// Owned by Run.
	ending  keeper.Ending                       // of the server's certificate
	cas     map[identity.KeyHash]*keeper.Ending // of the trusted authorities, by key
	waiting bool                                // the next certificate waits for an operator, which was logged
	spoken  time.Time                           // when it was logged last that certificates wait for one
}

func openOwn(cfg *config.Config, service *admin.Service, log *slog.Logger) (*own, error) {
	credentials, err := loadOwn(cfg, service.Bundle().Trusted)
	if err != nil {
		return nil, err
	}
	o := &own{cfg: cfg, service: service, log: log, credentials: credentials, wake: make(chan struct{}, 1)}
	o.revoke(service.Registry.Revocations(0))
	return o, nil
}

// loadOwn reads what the server proves itself with.
func loadOwn(cfg *config.Config, trusted []*x509.Certificate) (*identity.Credentials, error) {
	chain, err := identity.LoadCertificates(cfg.Certificate)
	if err != nil {
		return nil, err
	}
	key, err := identity.LoadKey(cfg.Key)
	if err != nil {
		return nil, err
	}
	credentials, err := identity.NewCredentials(chain, key, trusted, nil)
	switch {
	case err != nil:
		return nil, fmt.Errorf("use certificate %s: %w", cfg.Certificate, err)
	case credentials.ID.Role != identity.Server:
		return nil, fmt.Errorf("use certificate %s: it is of a %s (%s), a server's is needed", cfg.Certificate, credentials.ID.Role, credentials.ID)
	case credentials.ID.Domain != cfg.Domain:
		return nil, fmt.Errorf("use certificate %s: it is of the domain %s, the configuration says %s", cfg.Certificate, credentials.ID.Domain, cfg.Domain)
	}
	return credentials, nil
}

// serverTLS is the configuration of the listeners: three protocols on one port.
func (o *own) serverTLS() *tls.Config {
	cfg := marked(o.credentials.ServerTLS(identity.ProtocolControl, admit))
	enrol := marked(o.credentials.EnrolTLS(func(p identity.Peer) error {
		if p.ID.Role == identity.Admin {
			return nil // of its key RenewLate knows more
		}
		return admit(p)
	}))
	admin := marked(o.credentials.ServerTLS(identity.ProtocolAdmin, o.service.CheckAdmin))
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		switch {
		case slices.Contains(hello.SupportedProtos, identity.ProtocolEnrol):
			return enrol, nil
		case slices.Contains(hello.SupportedProtos, identity.ProtocolAdmin):
			return admin, nil
		}
		return nil, nil
	}
	return cfg
}

// revoke has no handshake accept what was revoked.
func (o *own) revoke(list []registry.Revoked) {
	for _, v := range list {
		if err := o.credentials.Revocations().Add(v.Revocation()); err != nil {
			o.log.Error("revocation not held", "what", v.Revocation(), "error", err)
		}
	}
}

// authoritiesChanged has handshakes trust whom the domain trusts now.
func (o *own) authoritiesChanged() {
	if err := o.credentials.Trust(o.service.Bundle().Trusted); err != nil {
		o.log.Error("authorities not taken", "error", err)
	}
	o.poke()
}

// poke has Run look at once.
func (o *own) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Run renews the server's certificate, until ctx is cancelled.
func (o *own) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-o.wake:
		case <-ctx.Done():
			return nil
		}
		o.look(ctx, time.Now())
		timer.Reset(min(lookTime, o.cfg.Live().CertificateLife/20))
	}
}

// look takes what lies in the certificate file if that has changed, and renews the
// certificate if it is due.
func (o *own) look(ctx context.Context, now time.Time) {
	if err := o.reload(); err != nil {
		o.log.Warn("server's certificate not read again", "error", err)
	}
	if o.service.Issues() && o.due(now) {
		err := o.renew(ctx)
		switch waits := errors.Is(err, pending.ErrWaits); {
		case waits && !o.waiting:
			o.log.Info("server's certificate is to be renewed", "until", o.credentials.Leaf().NotAfter, "waits", err)
		case err != nil && !waits && ctx.Err() == nil:
			o.log.Error("server's certificate not renewed", "until", o.credentials.Leaf().NotAfter, "error", err)
		}
		o.waiting = errors.Is(err, pending.ErrWaits)
	}
	o.remind(now)
	o.warn(now)
}

// soon names the certificates that end soon, of the server and of authorities, and when.
func (o *own) soon(now time.Time) (list []string) {
	if leaf := o.credentials.Leaf(); keeper.Soon(now, leaf) {
		list = append(list, "the server's certificate at "+leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	for _, ca := range o.credentials.Authorities() {
		if keeper.Soon(now, ca) {
			list = append(list, fmt.Sprintf("the CA %v at %s", identity.HashKey(ca), ca.NotAfter.UTC().Format(time.RFC3339)))
		}
	}
	return list
}

// warn speaks of certificates that end: the server's, and those of authorities.
func (o *own) warn(now time.Time) {
	leaf := o.credentials.Leaf()
	if left, due := o.ending.Due(now, leaf); due {
		o.log.Warn("server's certificate ends soon and was not renewed", "until", leaf.NotAfter, "left", left.Round(time.Second), "file", o.cfg.Certificate)
	}
	cas := make(map[identity.KeyHash]*keeper.Ending)
	for _, ca := range o.credentials.Authorities() {
		key := identity.HashKey(ca)
		if cas[key] = o.cas[key]; cas[key] == nil {
			cas[key] = new(keeper.Ending)
		}
		if left, due := cas[key].Due(now, ca); due {
			o.log.Warn("a trusted CA ends soon, and with it all that it has signed: netport-server ca roll makes another", "ca", key, "until", ca.NotAfter, "left", left.Round(time.Second))
		}
	}
	o.cas = cas
}

// remind logs now and then that certificates wait for an operator to sign them.
func (o *own) remind(now time.Time) {
	if !o.service.Waits() || now.Sub(o.spoken) < remindTime {
		return
	}
	n, since, err := o.service.Waiting()
	switch {
	case err != nil:
		o.log.Error("not known which certificates wait", "error", err)
	case n > 0 && now.Sub(since) >= patienceTime:
		o.spoken = now
		o.log.Warn("certificates wait for the CA key: netport-server ca pending", "count", n, "since", since)
	}
}

// due reports whether two thirds of the certificate's life are over, or of the life
// that certificates have now if that is shorter, or whether another authority issues
// than the one that signed it.
func (o *own) due(now time.Time) bool {
	leaf := o.credentials.Leaf()
	life := min(leaf.NotAfter.Sub(leaf.NotBefore), o.cfg.Live().CertificateLife)
	if now.Sub(leaf.NotBefore) >= life/3*2 {
		return true
	}
	b := o.service.Bundle()
	return b.Issuer != nil && leaf.CheckSignatureFrom(b.Issuer) != nil
}

func (o *own) renew(ctx context.Context) error {
	key, err := identity.LoadKey(o.cfg.Key)
	if err != nil {
		return err
	}
	chain, err := o.service.IssueServer(ctx, o.credentials.ID.Name, key, string(o.credentials.Leaf().SerialNumber.Bytes()))
	if err != nil {
		return err
	}
	if err := o.credentials.Renew(chain, key); err != nil {
		return err
	}
	if err := identity.ReplaceFile(o.cfg.Certificate, identity.EncodeCertificates(chain...), 0o600); err != nil {
		return fmt.Errorf("the new one is in use, but only until the next start: %w", err)
	}
	o.log.Info("server's certificate renewed", "until", chain[0].NotAfter)
	return nil
}

// reload takes a certificate that somebody else has put into the file: one that lasts
// longer than ours.
func (o *own) reload() error {
	chain, err := identity.LoadCertificates(o.cfg.Certificate)
	if err != nil {
		return err
	}
	if sameChain(chain, o.credentials.Certificate().Certificate) || !chain[0].NotAfter.After(o.credentials.Leaf().NotAfter) {
		return nil
	}
	key, err := identity.LoadKey(o.cfg.Key)
	if err != nil {
		return err
	}
	if err := o.credentials.Renew(chain, key); err != nil {
		return err
	}
	o.log.Info("server's certificate read anew", "until", chain[0].NotAfter)
	return nil
}

func sameChain(chain []*x509.Certificate, raw [][]byte) bool {
	return slices.EqualFunc(chain, raw, func(c *x509.Certificate, b []byte) bool { return bytes.Equal(c.Raw, b) })
}

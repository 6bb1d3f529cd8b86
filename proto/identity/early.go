package identity

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"time"
)

// Early is the handshake of a side whose clock may be far behind and that will
// hear the time from its peer. A certificate that is not valid yet by the clock
// here, but right in all else, does not end the handshake; nor is it accepted
// before Confirm has judged it anew at the time that the peer has told. One that
// has expired is refused in the handshake.
type Early struct {
	judge  func(tls.ConnectionState, time.Time) error
	state  tls.ConnectionState
	passed bool // only for its time to come
}

// EarlyTLS is ClientTLS for one connection of a side that is Early.
func (c *Credentials) EarlyTLS(protocol string, check Check) (*tls.Config, *Early) {
	e := &Early{judge: func(cs tls.ConnectionState, at time.Time) error {
		return c.verify(cs, protocol, x509.ExtKeyUsageServerAuth, at, check)
	}}
	return dialling(c.config(protocol, func(cs tls.ConnectionState) error {
		return e.verify(cs, c.now(), c.Authorities())
	})), e
}

// verify judges now, or where a certificate is not valid yet when the last of them is.
func (e *Early) verify(cs tls.ConnectionState, now time.Time, roots []*x509.Certificate) error {
	e.state = cs
	at := now
	for _, cert := range append(slices.Clip(cs.PeerCertificates[:min(len(cs.PeerCertificates), MaxChain)]), roots...) {
		if at.Before(cert.NotBefore) {
			at = cert.NotBefore
		}
	}
	err := e.judge(cs, now)
	if err != nil && at.After(now) && e.judge(cs, at) == nil {
		e.passed = true
		return nil
	}
	return err
}

// Confirm judges the peer at the time that it has told. An error means that it
// is not accepted. believe says whether its certificate is right at that time:
// else its clock is wrong, not the one here.
func (e *Early) Confirm(told time.Time) (believe bool, err error) {
	err = e.judge(e.state, told)
	if err != nil && !e.passed {
		return false, nil
	}
	return err == nil, err
}

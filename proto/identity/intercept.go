package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
)

// Intercepted is the error of a handshake in which something that is no part of Netport has
// answered in the place of the peer: a proxy or firewall that looks into TLS, or the log-in
// page of a network (a captive portal).
type Intercepted struct {
	// Shown is the certificate that was shown, which is none of Netport's; nil: none was.
	Shown *x509.Certificate
	// Said is what it began its answer with in place of TLS, 5 bytes; empty: it speaks TLS.
	Said string
	err  error
}

func (e *Intercepted) Error() string {
	const whatToDo = "open a browser to log in there, or have TLS to this address let through untouched"
	switch {
	case e.Said == "" && e.Shown == nil:
		return "something answers in its place that speaks TLS and knows nothing of Netport, as a captive portal, a proxy that looks into TLS or another service does: " + whatToDo
	case e.Said != "":
		return fmt.Sprintf("something answers in its place that speaks no TLS (it says %q), as a captive portal or a proxy does: %s", e.Said, whatToDo)
	}
	return fmt.Sprintf("something answers in its place with a certificate of %.100q, as a captive portal or a proxy that looks into TLS does: %s", e.Shown.Issuer, whatToDo)
}

// Unwrap returns the error of the handshake.
func (e *Intercepted) Unwrap() error { return e.err }

// noProtocol is the alert no_application_protocol (RFC 7301), which nobody of Netport sends to who
// asks for what is spoken there.
var noProtocol = tls.AlertError(120).Error()

// Watch has what a client's handshake fails by tell of who has answered: the function that it
// returns makes an *Intercepted of an error that is due to that, and leaves others as they are.
// cfg is for one connection.
func Watch(cfg *tls.Config) (explain func(error) error) {
	var shown *x509.Certificate
	verify := cfg.VerifyConnection
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) > 0 {
			shown = cs.PeerCertificates[0]
		}
		return verify(cs)
	}
	return func(err error) error {
		if record, ok := errors.AsType[tls.RecordHeaderError](err); ok {
			return &Intercepted{Said: string(record.RecordHeader[:]), err: err}
		}
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" && op.Err.Error() == noProtocol {
			return &Intercepted{err: err}
		}
		if shown == nil {
			return err
		}
		if _, other := FromCertificate(shown); other == nil {
			return err // it is one of Netport's, and what is wrong with it is said
		}
		return &Intercepted{Shown: shown, err: err}
	}
}

package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// certificateError is why the certificate of a peer was refused.
type certificateError struct{ error }

func (e *certificateError) Unwrap() error { return e.error }

// marked has what refuses a certificate return a *certificateError.
func marked(cfg *tls.Config) *tls.Config {
	verify := cfg.VerifyConnection
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := verify(cs); err != nil {
			return &certificateError{err}
		}
		return nil
	}
	return cfg
}

// refusedFor says in a word why a connection was not let in.
func refusedFor(err error) string {
	var record tls.RecordHeaderError
	var certificate *certificateError
	var alert tls.AlertError
	var op *net.OpError
	switch {
	case errors.Is(err, identity.ErrRevoked):
		return "revoked"
	case errors.As(err, &certificate):
		return "certificate"
	case errors.As(err, &record):
		return "not_tls"
	case errors.Is(err, wire.ErrMalformed):
		return "malformed_message"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timed_out"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled):
		return "closed"
	case errors.As(err, &alert), errors.As(err, &op) && op.Op == "remote error":
		return "refused_by_peer"
	}
	return "tls"
}

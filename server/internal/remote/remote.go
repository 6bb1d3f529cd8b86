// Package remote is the laptop's end of an operator's commands: it asks a server over
// mutual TLS (identity.ProtocolAdmin), with the identity of an admin, what a command on
// the server's own machine asks over the Unix socket. The framing is that of proto/local,
// one request a connection.
//
// Beside each request it keeps the admin's certificate alive: the files are those of a
// keeper.Keeper, which is not run.
package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"syscall"
	"time"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/folder"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/keeper"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/proxy"
)

const (
	// dialTime bounds the dial of one address and its handshake.
	dialTime = 10 * time.Second
	// askTime bounds a request with its answer: the server gives up earlier.
	askTime = 10 * time.Minute
	// renewTime bounds a renewal beside a request.
	renewTime = 30 * time.Second
)

// Place says which server is asked, and by whom.
type Place struct {
	File   string // the admin's configuration
	Server string // HOST or HOST:PORT; empty: those of the configuration
	Notes  io.Writer
}

// Call asks the server and decodes its result into result. What the server answers in
// place of one is a *local.Error.
func (p Place) Call(ctx context.Context, request string, args, result any) error {
	if p.Server != "" {
		if err := control.CheckServer(p.Server); err != nil {
			return command.Usagef("--server %q: %w", p.Server, err)
		}
	}
	file, err := Expand(p.File)
	if err != nil {
		return err
	}
	cfg, err := load(file)
	if err != nil {
		return err
	}
	if p.Server != "" {
		cfg.servers = []string{p.Server}
	}
	root, err := folder.AsOwner(cfg.state) // what is written is the admin's
	if err != nil {
		return err
	}
	defer root()
	k, err := keeper.Open(keeper.Config{
		Role: identity.Admin, Certificate: cfg.certificate, Key: cfg.key, CA: cfg.ca, State: cfg.state, Policy: cfg.policy,
		Servers: func() []string { return cfg.servers }, Proxy: cfg.proxy, Software: "netport-server/" + command.Version,
		Log: slog.New(slog.NewTextHandler(p.Notes, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	defer k.Close()
	c := client{k, cfg.proxy, p.Notes}
	if err := c.renew(ctx, false); err != nil {
		return err
	}
	issuer, err := c.ask(ctx, control.Addresses(cfg.servers), request, args, result)
	if len(issuer) > 0 && !bytes.Equal(issuer, k.Credentials().Leaf().AuthorityKeyId) {
		return errors.Join(err, c.renew(ctx, true))
	}
	return err
}

// Domain returns the domain of the admin, which is that of the server.
func (p Place) Domain() (string, error) {
	file, err := Expand(p.File)
	if err != nil {
		return "", err
	}
	cfg, err := load(file)
	if err != nil {
		return "", err
	}
	certs, err := identity.LoadCertificates(cfg.certificate)
	if err != nil {
		return "", err
	}
	id, err := identity.FromCertificate(certs[0])
	return id.Domain, err
}

// client is who asks.
type client struct {
	*keeper.Keeper
	proxy *proxy.Settings
	notes io.Writer
}

// renew renews the certificate where that is due. While it counts, a renewal that does not
// succeed is no more than a warning.
func (c client) renew(ctx context.Context, soon bool) error {
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	err := c.RenewOnce(ctx, soon)
	if err == nil {
		return nil
	}
	leaf := c.Credentials().Leaf()
	err = fmt.Errorf("renew the certificate of admin/%s: %w", c.Credentials().ID.Name, err)
	if c.Expired() {
		return fmt.Errorf("%w; it ended on %s", err, leaf.NotAfter.UTC().Format(time.DateTime+" UTC"))
	}
	fmt.Fprintf(c.notes, "netport-server: %s; it lasts until %s\n", command.Clean(err.Error()), leaf.NotAfter.UTC().Format(time.DateTime+" UTC"))
	return nil
}

// ask tries the addresses in turn until a server has proven itself, and asks that one. It
// returns the key identifier of the authority that has issued the server's certificate.
func (c client) ask(ctx context.Context, addresses []string, request string, args, result any) (issuer []byte, err error) {
	var first error
	for _, address := range addresses {
		conn, leaf, err := c.dial(ctx, address)
		if err != nil {
			if first == nil {
				first = fmt.Errorf("ask the server %s: %w", address, err)
			}
			continue
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		err = local.CallOver(ctx, conn, request, args, result)
		var said *local.Error
		if err != nil && !errors.As(err, &said) {
			err = fmt.Errorf("ask the server %s: %w", address, c.explained(err))
		}
		return leaf.AuthorityKeyId, err
	}
	return nil, first
}

func (c client) dial(ctx context.Context, address string) (net.Conn, *x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, _, err := control.Connect(ctx, c.proxy, address, func() (*tls.Config, struct{}) {
		return c.Credentials().ClientTLS(identity.ProtocolAdmin, identity.Expect(identity.Server, "")), struct{}{}
	})
	if err != nil {
		return nil, nil, err
	}
	return conn, conn.ConnectionState().PeerCertificates[0], nil
}

// explained says what a connection that ends without an answer may mean. Of TLS 1.3 it is
// the first read that shows whether the certificate was taken.
func (c client) explained(err error) error {
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Op == "remote error":
		return fmt.Errorf("it refused the certificate of admin/%s (%w): it was revoked, or the name has another key now; an operator can invite it anew", c.Credentials().ID.Name, op.Err)
	case errors.Is(err, local.ErrSilent):
		return fmt.Errorf("%w: whether it did what was asked, \"netport-server audit\" says", err)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return errors.New("it hung up before it had answered: whether it did what was asked, \"netport-server audit\" says")
	}
	return err
}

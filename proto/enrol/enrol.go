package enrol

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/invite"
	"github.com/netport/netport/proto/proxy"
	"github.com/netport/netport/proto/wire"
)

const (
	// dialTime bounds the dial of one address with its handshake, and then
	// the server's first word.
	dialTime = 10 * time.Second
	// signTime is how long a server that has an operator decide may be silent: it
	// gives a sign of life every 30 seconds.
	signTime = 75 * time.Second
	// waitPause bounds the time between two attempts of one that waits.
	waitPause = 10 * time.Second
)

// Client is who enrols.
type Client struct {
	Software string                        // name and version of this program
	Now      func() time.Time              // its clock
	Waiting  func(key identity.KeyHash)    // is called when an operator has to decide; may be nil
	Failed   func(address string, _ error) // is called for each server that was not reached; may be nil
	Proxy    *proxy.Settings               // through which servers are reached; nil: through none

	pause time.Duration // for tests; 0: waitPause
}

// waitPause is that of a Client but for tests.
func (c *Client) waitPause() time.Duration {
	if c.pause > 0 {
		return c.pause
	}
	return waitPause
}

// Result is what was got.
type Result struct {
	ID          identity.ID
	Chain       []*x509.Certificate // leaf first
	Authorities wire.Authorities    // signed by a key of Policy
	Roots       []*x509.Certificate // those of Authorities
	Policy      []ed25519.PublicKey
	Servers     []string // "host" or "host:port"; 1 or more
	Addresses   []netip.Addr
	Told        time.Time // by the server, if its certificate is right at that time; else zero
}

// Refused is an enrolment that the server has refused for good.
type Refused struct {
	Reason wire.Reason
	Text   string
}

func (r *Refused) Error() string {
	if r.Text == "" {
		return "the server refuses: " + r.Reason.String()
	}
	return fmt.Sprintf("the server refuses: %s: %q", r.Reason, r.Text)
}

// Join enrols with a token. Where an operator has to approve it waits, also through
// connections that break, until ctx is over.
func (c *Client) Join(ctx context.Context, t invite.Token, key crypto.Signer) (Result, error) {
	waiting := false
	client := *c
	client.Waiting = func(key identity.KeyHash) {
		if c.Waiting != nil && !waiting {
			c.Waiting(key)
		}
		waiting = true
	}
	for {
		r, err := client.each(ctx, t.Servers, func(ctx context.Context, address string) (Result, error) {
			return client.join(ctx, address, t, key)
		})
		var refused *Refused
		if err == nil || !waiting || errors.As(err, &refused) || ctx.Err() != nil {
			return r, err
		}
		timer := time.NewTimer(c.waitPause()/2 + rand.N(c.waitPause()/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return Result{}, err
		}
	}
}

// Renew asks for a new certificate in place of one that has expired, for the key
// of csr. policy are the keys that are pinned.
func (c *Client) Renew(ctx context.Context, own *identity.Credentials, servers []string, policy []ed25519.PublicKey, csr []byte) (Result, error) {
	return c.each(ctx, servers, func(ctx context.Context, address string) (Result, error) {
		conn, early, err := connect(ctx, c.Proxy, address, func() (*tls.Config, *identity.Early) {
			return own.EarlyTLS(identity.ProtocolEnrol, identity.Expect(identity.Server, ""))
		})
		if err != nil {
			return Result{}, err
		}
		bundle, m, err := c.ask(ctx, conn, wire.Enrol{CSR: csr})
		if err != nil {
			return Result{}, err
		}
		r := Result{ID: own.ID, Policy: policy}
		return r, r.take(bundle, m, early)
	})
}

// each tries the servers one after the other, until one has given an answer.
func (c *Client) each(ctx context.Context, servers []string, try func(ctx context.Context, address string) (Result, error)) (Result, error) {
	var first error
	for _, address := range control.Addresses(servers) {
		r, err := try(ctx, address)
		var refused *Refused
		if err == nil || errors.As(err, &refused) {
			return r, err
		}
		err = fmt.Errorf("enrol at server %s: %w", address, err)
		if c.Failed != nil {
			c.Failed(address, err)
		}
		// Who was reached and said no tells more than who was not.
		if first == nil || errors.As(first, new(*control.UnreachedError)) && !errors.As(err, new(*control.UnreachedError)) {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return Result{}, first
}

// connect connects to a server that proves itself.
func connect[T any](ctx context.Context, through *proxy.Settings, address string, secure func() (*tls.Config, T)) (control.Channel, T, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	return control.Connect(ctx, through, address, secure)
}

func (c *Client) join(ctx context.Context, address string, t invite.Token, key crypto.Signer) (Result, error) {
	conn, joining, err := connect(ctx, c.Proxy, address, func() (*tls.Config, *identity.Joining) {
		return identity.JoinTLS(t.Authority, c.Now)
	})
	if err != nil {
		return Result{}, err
	}
	id, request, err := joinRequest(joining.Domain, t, key)
	if err != nil {
		conn.NetConn().Close()
		return Result{}, err
	}
	bundle, m, err := c.ask(ctx, conn, request)
	if err != nil {
		return Result{}, err
	}
	if !slices.ContainsFunc(m.Policy, func(k ed25519.PublicKey) bool { return k.Equal(t.Policy) }) {
		return Result{}, fmt.Errorf("the server's policy key is not %s, as the token says: it is another's server, or its policy key was changed since the token was made", grant.FormatKey(t.Policy))
	}
	r := Result{ID: id, Policy: []ed25519.PublicKey{t.Policy}}
	if err := r.take(bundle, m, &joining.Early); err != nil {
		return Result{}, err
	}
	at := r.Told
	if at.IsZero() {
		at = c.Now()
	}
	if err := identity.CheckIssued(r.Chain, r.Roots, id, identity.HashPublic(key.Public()), at); err != nil {
		return Result{}, fmt.Errorf("the certificate that the server gave: %w", err)
	}
	return r, nil
}

// joinRequest is what the owner of a token asks for.
func joinRequest(domain string, t invite.Token, key crypto.Signer) (identity.ID, wire.Enrol, error) {
	id, err := identity.New(domain, t.Role, t.Name)
	if err != nil {
		return identity.ID{}, wire.Enrol{}, err
	}
	csr, err := identity.NewRequest(id, key)
	return id, wire.Enrol{Token: t.ID, Secret: t.Secret, CSR: csr}, err
}

// take checks what came.
func (r *Result) take(bundle wire.Authorities, m wire.Enrolled, early *identity.Early) error {
	told := time.Unix(int64(m.Time), 0).UTC()
	believe, err := early.Confirm(told)
	if err != nil {
		return fmt.Errorf("the server says that it is %s, when its own certificate is not valid: its clock is wrong, or ours is: %w", told.Format(time.RFC3339), err)
	}
	if believe {
		r.Told = told
	}
	if !bundle.SignedBy(r.Policy...) {
		return errors.New("the server's list of authorities is not signed by the policy key")
	}
	if r.Roots, err = identity.ParseChain(bundle.Certificates); err != nil {
		return fmt.Errorf("the server's list of authorities: %w", err)
	}
	if r.Chain, err = identity.ParseChain(m.Chain); err != nil {
		return fmt.Errorf("the certificate that the server gave: %w", err)
	}
	for _, s := range m.Servers {
		if err := control.CheckServer(s); err != nil {
			return fmt.Errorf("the server's list of servers: %q: %w", s, err)
		}
	}
	r.Authorities, r.Servers, r.Addresses = bundle, m.Servers, m.Addresses
	return nil
}

// ask is one exchange, after which the connection is closed.
func (c *Client) ask(ctx context.Context, conn control.Channel, m wire.Enrol) (wire.Authorities, wire.Enrolled, error) {
	fail := func(err error) (wire.Authorities, wire.Enrolled, error) {
		return wire.Authorities{}, wire.Enrolled{}, err
	}
	defer conn.NetConn().Close()
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	conn.SetDeadline(time.Now().Add(dialTime))
	m.Version, m.Software = wire.ControlVersion, c.Software
	if _, err := conn.Write(wire.AppendMessage(nil, m)); err != nil {
		return fail(err)
	}
	var bundle wire.Authorities
	for {
		answer, err := read(conn)
		switch m := answer.(type) {
		case nil:
			if err != nil {
				return fail(err)
			}
		case wire.EnrolWait:
			conn.SetDeadline(time.Now().Add(signTime))
			if c.Waiting != nil {
				c.Waiting(m.Key)
			}
		case wire.Authorities:
			bundle = m
		case wire.Enrolled:
			conn.Close()
			return bundle, m, nil
		case wire.EnrolRefused:
			if m.Reason == wire.ReasonBusy || m.Reason == wire.ReasonShutdown || m.Reason == wire.ReasonInternal {
				return fail(errors.New("it says: " + (&Refused{m.Reason, m.Text}).Error())) // another may do it
			}
			return fail(&Refused{m.Reason, m.Text})
		}
	}
}

// read reads one message; nil without an error for one of a newer version.
func read(conn io.Reader) (wire.ToJoiner, error) {
	var header [wire.ControlHeaderLen]byte
	if _, err := io.ReadFull(conn, header[:]); err != nil {
		var alert *net.OpError
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it closed the connection without an answer")
		}
		if errors.As(err, &alert) && alert.Op == "remote error" {
			return nil, fmt.Errorf("it refused the certificate (%w): its log says why", err)
		}
		return nil, err
	}
	t, n, err := wire.ParseControlHeader(header[:])
	if err != nil {
		return nil, err
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, err
	}
	m, err := wire.ParseToJoiner(t, body)
	if errors.Is(err, wire.ErrUnknownType) {
		return nil, nil
	}
	return m, err
}

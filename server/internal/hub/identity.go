package hub

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/enrol"
	"github.com/netport/netport/server/internal/pending"
	"github.com/netport/netport/server/internal/registry"
)

const (
	// keyChangeTime is how long a name has two keys at most while its holder is
	// connected: then he is asked to show which he has.
	keyChangeTime = time.Hour
	// renewPause is how often one connection may renew its certificate.
	renewPause = 2 * time.Second
)

// Identities is what becomes of the identities of those who are connected. Its
// methods may block but for Authorities, and are called without the hub's mutex.
type Identities interface {
	// Authorities are whom the domain trusts; Version 0: that is not signed yet.
	Authorities() wire.Authorities
	// AdmitElsewhere enrols who comes with a right certificate that was issued
	// elsewhere, where that is allowed.
	AdmitElsewhere(identity.Peer) error
	// Settle makes the key that a peer has shown the only one of its name.
	Settle(identity.Peer) error
	// Renew makes a new certificate for a peer. An *enrol.Refusal is for the peer, and
	// an error with pending.ErrWaits says that an operator has to sign first.
	Renew(ctx context.Context, p identity.Peer, csr []byte) ([]*x509.Certificate, error)
}

// renewal is the one that a connection may have under way.
type renewal struct {
	jobs sync.WaitGroup
	// Guarded by the hub's mutex.
	busy   bool
	last   time.Time
	again  func() // tries once more what waits for an operator; nil: nothing does
	missed bool   // an operator has signed while one was under way
}

func (r *renewal) wait() { r.jobs.Wait() }

func (h *Hub) admit(p identity.Peer) {
	if err := h.identities.AdmitElsewhere(p); err != nil {
		h.log.Error("identity not enrolled", "peer", p.ID, "error", err)
	}
}

func (h *Hub) settleKey(p identity.Peer) {
	if err := h.identities.Settle(p); err != nil {
		h.log.Error("key not settled", "peer", p.ID, "error", err)
	}
}

// renew has a new certificate made for who asks. The hub's mutex is held.
func renew[Out wire.Message](ctx context.Context, h *Hub, c *connection[Out], m wire.Renew) {
	now := time.Now()
	if c.renewal.busy || now.Sub(c.renewal.last) < renewPause {
		sendBoth(c, wire.RenewRefused{Request: m.Request, Reason: wire.ReasonBusy, Text: "one renewal at a time"})
		return
	}
	waits := c.renewal.again != nil
	c.renewal.last, c.renewal.again = now, nil
	tryRenew(ctx, h, c, m, waits, true)
}

// tryRenew answers a request once: with what there is to say, but that it still waits only
// if tell is set. The hub's mutex is held; the work is done without it.
func tryRenew[Out wire.Message](ctx context.Context, h *Hub, c *connection[Out], m wire.Renew, waits, tell bool) {
	c.renewal.busy, c.renewal.again, c.renewal.missed = true, nil, false
	peer := c.peer
	c.renewal.jobs.Go(func() {
		chain, err := h.identities.Renew(ctx, peer, m.CSR)
		h.mu.Lock()
		defer h.mu.Unlock()
		c.renewal.busy = false
		var refused *enrol.Refusal
		switch {
		case errors.Is(err, pending.ErrWaits):
			c.renewal.again = func() { tryRenew(ctx, h, c, m, true, false) }
			if !waits {
				h.audit.Write(audit.Record{Event: "renew", Answer: audit.Waiting, Portal: peer.ID.Name, Detail: err.Error()})
				h.log.Info("certificate is to be renewed", "peer", peer.ID, "waits", err)
			}
			if tell {
				sendBoth(c, wire.RenewRefused{Request: m.Request, Reason: wire.ReasonWaiting, Text: err.Error()})
			}
			if c.renewal.missed {
				c.renewal.again()
			}
		case errors.As(err, &refused):
			h.audit.Write(audit.Record{Event: "renew", Answer: audit.Refused, Portal: peer.ID.Name, Reason: refused.Reason.String(), Detail: refused.Text})
			h.log.Warn("certificate not renewed", "peer", peer.ID, "reason", refused.Text)
			sendBoth(c, wire.RenewRefused{Request: m.Request, Reason: refused.Reason, Text: refused.Text})
		case err != nil:
			h.audit.Write(audit.Record{Event: "renew", Answer: audit.Refused, Portal: peer.ID.Name, Reason: wire.ReasonInternal.String(), Detail: err.Error()})
			h.log.Error("certificate not renewed", "peer", peer.ID, "error", err)
			sendBoth(c, wire.RenewRefused{Request: m.Request, Reason: wire.ReasonInternal, Text: "the server could not make the certificate; its log says why"})
		default:
			if identity.HashKey(chain[0]) == c.peer.Key { // it proves the connection as well
				c.peer.NotAfter, c.peer.Serial, c.presented = chain[0].NotAfter, string(chain[0].SerialNumber.Bytes()), chain
			}
			h.log.Info("certificate renewed", "peer", peer.ID, "until", chain[0].NotAfter)
			sendBoth(c, wire.Renewed{Request: m.Request, Chain: raw(chain)})
		}
	})
}

// RenewAgain tries once more for all who are connected and wait for an operator: he has
// signed something.
func (h *Hub) RenewAgain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.portals {
		c.renewal.retry()
	}
	for _, c := range h.relays {
		c.renewal.retry()
	}
}

func (r *renewal) retry() {
	switch {
	case r.busy:
		r.missed = true
	case r.again != nil:
		r.again()
	}
}

// sendBoth sends a message that portals and relays have in common.
func sendBoth[Out wire.Message](c *connection[Out], m interface {
	wire.ToPortal
	wire.ToRelay
}) {
	c.link.Send(any(m).(Out))
}

func raw(chain []*x509.Certificate) [][]byte {
	list := make([][]byte, len(chain))
	for i, c := range chain {
		list[i] = c.Raw
	}
	return list
}

// tellRevocations answers who has said which revocations it holds: it gets those that
// are newer, and from now on each as it comes. An epoch that is higher than ours means
// that our state is an old one. The mutex is held.
func tellRevocations[Out wire.Message](h *Hub, c *connection[Out], held uint64) {
	epoch := h.registry.Epoch()
	if held > epoch {
		h.registry.Told(held)
		h.audit.Write(audit.Record{Event: "revocations", Answer: audit.Lost, Portal: c.peer.ID.Name, Count: held - epoch, Detail: "epoch regression"})
		h.log.Error("epoch regression: a peer holds revocations that this server has lost; was an old state restored? Revoke again what was revoked since", "peer", c.peer.ID, "holds", held, "epoch", epoch)
	}
	c.told = true
	sendRevocations(c, h.registry.Revocations(held), epoch)
}

func sendRevocations[Out wire.Message](c *connection[Out], list []registry.Revoked, epoch uint64) {
	for _, v := range list {
		sendBoth(c, wire.Revocation{Revocation: v.Revocation()})
	}
	sendBoth(c, wire.RevocationsComplete{Epoch: epoch})
}

// Revoked makes revocations known, which are in the registry and among those of the
// server's credentials already: whom they hit is disconnected, and his sessions end;
// everybody else is told.
func (h *Hub) Revoked(list []registry.Revoked) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	hit := h.hitBy(list)
	for name, c := range h.portals {
		if err := hit(c.peer, c.presented); err != nil {
			h.log.Warn("portal revoked", "portal", name, "from", c.address, "reason", err)
			h.broker.Revoke(now, name)
			h.dropPortal(c, revokedText)
		}
	}
	for name, c := range h.relays {
		if err := hit(c.peer, c.presented); err != nil {
			h.log.Warn("relay revoked", "relay", name, "from", c.address, "reason", err)
			h.broker.FromRelay(now, name, wire.RelayDraining{})
			h.dropRelay(c, revokedText)
		}
	}
	epoch := h.registry.Epoch()
	for _, c := range h.portals {
		if c.told {
			sendRevocations(c, list, epoch)
		}
	}
	for _, c := range h.relays {
		if c.told {
			sendRevocations(c, list, epoch)
		}
	}
}

// hitBy returns what tells whether revocations hit a peer. Only those whom one may hit
// have their chains verified anew: with thousands of peers that would take a second.
func (h *Hub) hitBy(list []registry.Revoked) func(identity.Peer, []*x509.Certificate) error {
	root := false // the key of an authority that nobody presents
	for _, a := range h.own.Authorities() {
		key := identity.HashKey(a)
		root = root || slices.ContainsFunc(list, func(v registry.Revoked) bool { return v.Key == key })
	}
	return func(p identity.Peer, presented []*x509.Certificate) error {
		suspect := root || slices.ContainsFunc(list, func(v registry.Revoked) bool {
			return v.Role == p.ID.Role && v.Name == p.ID.Name || slices.ContainsFunc(presented, func(c *x509.Certificate) bool {
				return v.Key == identity.HashKey(c) || v.Serial != "" && v.Serial == hex.EncodeToString(c.SerialNumber.Bytes())
			})
		})
		if !suspect {
			return nil
		}
		return h.own.Recheck(presented)
	}
}

// revokedText is what a peer is told whose certificate was revoked.
const revokedText = "this certificate was revoked"

// AuthoritiesChanged tells everybody whom the domain trusts now.
func (h *Hub) AuthoritiesChanged() {
	m := h.identities.Authorities()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.portals {
		tellAuthorities(c, m)
	}
	for _, c := range h.relays {
		tellAuthorities(c, m)
	}
}

// tellAuthorities tells a peer whom the domain trusts, if the policy key has signed
// that already.
func tellAuthorities[Out wire.Message](c *connection[Out], m wire.Authorities) {
	if m.Version > 0 {
		sendBoth(c, m)
	}
}

// askForKey has a peer connect anew that has had a second key for long and has not
// shown it. The mutex is held.
func askForKey[Out wire.Message](h *Hub, c *connection[Out], now time.Time) {
	e, ok := h.registry.Enrolled(c.peer.ID.Role, c.peer.ID.Name)
	if ok && !e.NextSince.IsZero() && now.Sub(e.NextSince) >= keyChangeTime && now.Sub(c.since) >= keyChangeTime {
		c.link.Close(wire.ReasonShutdown, "connect anew, to show which key you have")
	}
}

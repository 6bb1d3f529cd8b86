package keeper

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/netport/netport/proto/clock"
	"github.com/netport/netport/proto/folder"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/proxy"
	"github.com/netport/netport/proto/wire"
)

// The files in the state folder.
const (
	ClockFile       = "clock"
	authoritiesFile = "authorities"
	revocationsFile = "revocations"
)

// FromBoth is what portals and relays say alike.
type FromBoth interface {
	wire.FromPortal
	wire.FromRelay
}

// Config is what a Keeper is made from.
type Config struct {
	Role                 identity.Role
	Certificate, Key, CA string            // files
	Keys                 identity.Keys     // that Key is one of; nil: identity.KeyFiles
	State                string            // folder; it is made if it is missing
	Policy               ed25519.PublicKey // that is pinned; nil: no authorities but those of the CA file are taken
	RenewKey             bool              // every renewal is with a new key
	Servers              func() []string   // for a certificate that has expired
	Proxy                *proxy.Settings   // through which these are reached; nil: through none
	Software             string
	Log                  *slog.Logger
}

// Hooks are told what a Keeper does. They are called one after the other and must
// not block for long; each may be nil.
type Hooks struct {
	// Renewing is called before a certificate is asked for with a new key: from now
	// on the server may name either.
	Renewing func(inUse, next identity.KeyHash)
	// Renewed is called when the certificate has changed; before is the key until now.
	Renewed func(before identity.KeyHash)
	// Revoked is called when something was revoked: what runs is to be judged anew
	// (identity.Credentials.Recheck).
	Revoked func()
}

// Keeper is described at the top of the package.
type Keeper struct {
	Config
	credentials *identity.Credentials
	clock       *clock.Clock
	hooks       Hooks         // set before Run
	wake        chan struct{} // capacity 1: something that Run waits for has changed

	// Owned by Run.
	ending    Ending           // warnings
	due       time.Time        // when the certificate is to be renewed,
	dueOf     time.Time        // that ends then
	again     time.Time        // not before,
	failures  int              // of it so far
	unreached bool             // no server has answered the last attempt
	rushed    identity.KeyHash // the issuing authority for which it was brought forward

	mu        sync.Mutex       // guards the following
	send      func(FromBoth)   // nil: not connected
	issuing   identity.KeyHash // of the authorities that are held
	version   uint64           // of them; 0: those of the CA file
	request   *request         // under way
	asked     uint32           // number of the last request
	refused   bool             // a server refused the certificate
	waits     time.Time        // since when an operator has to sign the next one; zero: nobody has
	next      identity.KeyHash // of the next one, when a new key was asked for last
	arrived   [][]byte         // which came for the last request, long after it
	anew      bool             // connected since that was asked for
	leave     func()           // ends a wait over the enrolment protocol
	hasty     bool             // it waits for no operator
	revoked   *log             // on disk
	unsynced  int              // revocations that came and were not acted on
	behind    uint64           // epoch of a server that has lost revocations; only if regressed
	regressed bool
	missing   int   // revocations that the server told since the last connection and that are not held
	last      error // of the last attempt to renew; nil: it went well
}

// Open loads the credentials. A renewal that was interrupted is brought to its
// end, or left for the next.
func Open(cfg Config) (*Keeper, error) {
	if err := folder.Make(cfg.State); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	if cfg.Keys == nil {
		cfg.Keys = identity.KeyFiles{}
	}
	k := &Keeper{Config: cfg, wake: make(chan struct{}, 1)}
	var err error
	if k.clock, err = clock.Open(filepath.Join(cfg.State, ClockFile), clock.Built(), nil); err != nil {
		cfg.Log.Warn("the time of the last run is not known", "error", err)
	}
	if err := k.finishKey(); err != nil {
		return nil, err
	}
	if k.credentials, err = identity.LoadWith(cfg.Keys, cfg.Certificate, cfg.Key, cfg.CA, cfg.Role, k.clock.Now); err != nil {
		return nil, err
	}
	k.loadAuthorities()
	if k.revoked, err = openLog(filepath.Join(cfg.State, revocationsFile), k.credentials.Revocations(), cfg.Log); err != nil {
		return nil, err
	}
	return k, nil
}

// Credentials returns what is kept.
func (k *Keeper) Credentials() *identity.Credentials { return k.credentials }

// Clock returns the clock by which all of it is judged.
func (k *Keeper) Clock() *clock.Clock { return k.clock }

// Hook sets who is told. It is called once, before Run.
func (k *Keeper) Hook(h Hooks) { k.hooks = h }

// Told takes the time of a proven server (control.Dialer.Told).
func (k *Keeper) Told(at time.Time) {
	k.clock.Told(at)
	k.poke()
}

// Refused takes that a server has refused the certificate (control.Dialer.Refused):
// it may have expired by the server's clock alone.
func (k *Keeper) Refused() {
	k.mu.Lock()
	k.refused = true
	k.mu.Unlock()
	k.poke()
}

// Connected takes a connection to a server: send queues a message for it.
func (k *Keeper) Connected(send func(FromBoth)) {
	k.mu.Lock()
	k.send, k.refused, k.regressed, k.missing, k.anew = send, false, false, 0, true
	if k.leave != nil {
		k.leave()
	}
	send(wire.RevocationsHeld{Epoch: k.credentials.Revocations().Epoch()})
	k.mu.Unlock()
	k.poke()
}

// Lost takes that the connection is gone.
func (k *Keeper) Lost() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.send = nil
	if k.request != nil {
		k.request.answer(nil, errLost)
	}
}

var errLost = errors.New("the connection to the server was lost")

// Handle takes a message of the server, if it is one of those that are for a
// Keeper, and reports whether it was.
func (k *Keeper) Handle(m wire.Message) (taken bool, err error) {
	switch m := m.(type) {
	case wire.Renewed:
		k.answered(m.Request, m.Chain, nil)
	case wire.RenewRefused:
		k.answered(m.Request, nil, &refusal{m.Reason, m.Text})
	case wire.Authorities:
		k.takeAuthorities(m)
	case wire.Revocation:
		k.takeRevocation(m)
	case wire.RevocationsComplete:
		k.complete(m.Epoch)
	default:
		return false, nil
	}
	return true, nil
}

func (k *Keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Run renews, and acts on what was revoked, until ctx is cancelled.
func (k *Keeper) Run(ctx context.Context) error {
	var clocks sync.WaitGroup
	clocks.Go(func() { k.clock.Run(ctx, k.Log) })
	defer clocks.Wait()
	defer k.revoked.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-k.wake:
		}
		k.act()
		timer.Reset(k.renew(ctx))
	}
}

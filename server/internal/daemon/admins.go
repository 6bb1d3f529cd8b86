package daemon

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/server/internal/admin"
)

const (
	// maxAsking is how many requests of one admin are served at once; the others wait.
	maxAsking = 4
	// passTime is how long a request of an admin may take to come, and its answer to be
	// sent: both may be a policy with all its signatures, over a slow network.
	passTime = 2 * time.Minute
	// workTime bounds what lies between: a CA elsewhere may be asked.
	workTime = 5 * time.Minute
)

// admins serves the operators who work from other machines. One connection is one
// request, of the same kind and with the same answer as over the local socket.
type admins struct {
	service     *admin.Service
	credentials *identity.Credentials

	// Set before any is served.
	views  map[string]bool // requests that show what runs
	answer func(context.Context, net.Conn, time.Duration, func(string, json.RawMessage) error)

	mu   sync.Mutex // guards the following
	open map[*adminConn]bool
	room map[string]chan struct{} // of each admin who has ever come, by name; capacity maxAsking
}

// adminConn is the connection of one admin.
type adminConn struct {
	presented []*x509.Certificate
	end       context.CancelFunc
}

func newAdmins(service *admin.Service, credentials *identity.Credentials) *admins {
	return &admins{service: service, credentials: credentials, views: make(map[string]bool), open: make(map[*adminConn]bool), room: make(map[string]chan struct{})}
}

// serve serves the request of a peer whose handshake is over.
func (a *admins) serve(ctx context.Context, c control.Channel) error {
	state := c.ConnectionState()
	peer, err := identity.PeerOf(state)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*passTime+workTime)
	defer cancel()
	defer a.note(state.PeerCertificates, cancel)()
	room := a.roomOf(peer.ID.Name)
	select {
	case room <- struct{}{}:
		defer func() { <-room }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// Whoever was revoked before the connection was noted is found out here.
	check := func() error {
		if err := a.credentials.Recheck(state.PeerCertificates); err != nil {
			return err
		}
		return a.service.CheckAdmin(peer)
	}
	if err := check(); err != nil {
		return err
	}
	ctx = local.WithCaller(ctx, local.Caller{Admin: peer.ID.Name})
	a.answer(ctx, c, passTime, func(command string, args json.RawMessage) error {
		if check() != nil {
			return errors.New("this admin was revoked, or has another key now")
		}
		if a.views[command] {
			return nil
		}
		return a.service.CheckScope(ctx, peer.ID.Name, command, args)
	})
	return nil
}

func (a *admins) roomOf(name string) chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.room[name] == nil {
		a.room[name] = make(chan struct{}, maxAsking)
	}
	return a.room[name]
}

// note has a connection end when what it has proven is revoked, until it is forgotten.
func (a *admins) note(presented []*x509.Certificate, end context.CancelFunc) (forget func()) {
	c := &adminConn{presented, end}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open[c] = true
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.open, c)
	}
}

// recheck ends the connections of who was revoked. An admin who revokes himself has no
// answer, and finds himself out.
func (a *admins) recheck() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.open {
		if a.credentials.Recheck(c.presented) != nil {
			c.end()
		}
	}
}

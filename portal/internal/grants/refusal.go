package grants

import (
	"slices"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// maxRefusals bounds the refusals that are kept.
const maxRefusals = 64

// Refusal is a grant that was not taken from a server, or something that a peer
// was not admitted to. Forward and Version are what the grant itself says, which
// proves nothing where its signature is wrong.
type Refusal struct {
	At      time.Time
	Forward string // may be empty: nothing that could be read was shown, or it is about a version
	Peer    string // who has shown it; empty: the server
	Version uint64 // of the policy
	Reason  wire.Reason
	Text    string // for this portal's own people

	id wire.GrantID
}

// refused keeps a refusal. It takes the place of one of the same grant for the
// same reason, and of any of the same peer for that reason: whoever tries again
// and again does not push the others out.
func (s *Set) refused(now time.Time, g grant.Grant, peer string, err error) {
	r := Refusal{At: now, Forward: g.Forward, Peer: peer, Version: g.Version, Reason: reasonOf(err), Text: err.Error()}
	if g.Forward != "" {
		r.id = g.ID()
	}
	s.refusals = slices.DeleteFunc(s.refusals, func(o Refusal) bool {
		return o.Peer == r.Peer && o.Reason == r.Reason && (r.Peer != "" || o.id == r.id)
	})
	s.refusals = append(s.refusals, r)
	s.refusals = s.refusals[max(0, len(s.refusals)-maxRefusals):]
}

// forgive forgets what was said about a grant that is right now, and that one of the same
// forward before it was taken back.
func (s *Set) forgive(g grant.Grant) {
	id := g.ID()
	s.refusals = slices.DeleteFunc(s.refusals, func(o Refusal) bool {
		before := o.Forward == g.Forward && o.Version < g.Version && o.Reason == wire.ReasonGrantRemoved
		return o.Peer == "" && (o.id == id || before)
	})
}

// forgiveVersions forgets what was said about versions: the server's is right now.
func (s *Set) forgiveVersions() {
	s.refusals = slices.DeleteFunc(s.refusals, func(o Refusal) bool { return o.Peer == "" && o.Forward == "" && o.Version != 0 })
}

// Refusals returns the last refusals, the newest first.
func (s *Set) Refusals() []Refusal {
	list := slices.Clone(s.refusals)
	slices.Reverse(list)
	return list
}

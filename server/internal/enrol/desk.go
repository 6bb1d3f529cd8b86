// Package enrol holds the rules by which a device that has nothing but a token gets
// an identity: who was invited, who may claim the invitation, and who waits for an
// operator to approve it. It has no sockets and signs nothing: it says who has won,
// and its caller issues the certificate.
//
// A token lives like this; each arrow is one commit of the store, decided upon the
// revision it names, so that of any number of claims at once exactly one wins:
//
//	Invite                  Claim, right secret
//	-------> open -------------------------------------> used by key K
//	          |                                             |   ^
//	          | Claim, approval asked for                   +---+ Claim by K again
//	          +--------> waiting: keys K, L -- Approve K -----> used by K
//
// An open or waiting token ends with its time or when its name is revoked. Whoever
// has used it may claim it again with the same key until its time is over: an answer
// that was lost costs nothing. Of the secret the store has the SHA-256 alone.
//
// Every claim that fails, for whatever reason, fails with ErrToken: a stranger
// learns nothing of which names were invited or which tokens exist.
package enrol

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/store"
)

const (
	// MaxLife is how long a token may be good for; the shortest is a minute.
	MaxLife = 7 * 24 * time.Hour
	minLife = time.Minute
	// MaxTokens is how many tokens there may be at once.
	MaxTokens = 20_000
	// maxWaiting is how many keys may wait at one token for approval.
	maxWaiting = 8

	prefix = "token/"
)

var (
	// ErrToken is the answer to every claim that fails.
	ErrToken = errors.New("the token is wrong, was used or has ended, or too many tries from this address were wrong: wait a minute, or ask for another")
	// ErrWait says that an operator has to decide first.
	ErrWait = errors.New("it waits for an operator")
	// ErrRejected is the answer to a key that an operator has rejected.
	ErrRejected = errors.New("an operator has rejected this key")
	// errGuess is ErrToken for a claim whose secret is wrong.
	errGuess = errors.New("wrong secret")
)

// Token is an invitation as it is kept.
type Token struct {
	ID        wire.TokenID     `json:"id"`
	Hash      []byte           `json:"hash"` // SHA-256 of the secret
	Role      identity.Role    `json:"role"`
	Name      string           `json:"name"`
	Addresses []string         `json:"addresses,omitempty"` // of a relay
	Replace   bool             `json:"replace,omitempty"`
	Approve   bool             `json:"approve,omitempty"`
	ReadOnly  bool             `json:"read_only,omitempty"` // of an admin
	Made      time.Time        `json:"made"`
	Ends      time.Time        `json:"ends"`
	Used      identity.KeyHash `json:"used,omitzero"` // by this key; zero: not yet
	UsedFrom  string           `json:"used_from,omitempty"`
	Waiting   []Waiting        `json:"waiting,omitempty"`
	Rejected  bool             `json:"rejected,omitempty"` // with all that waited
}

// Waiting is a key that wants to be approved.
type Waiting struct {
	Key   identity.KeyHash `json:"key"`
	From  string           `json:"from"`
	Since time.Time        `json:"since"`
}

// Desk keeps the tokens of a store. It is safe for concurrent use.
type Desk struct {
	store store.Store
	now   func() time.Time

	mu       sync.Mutex // guards the following
	attempts attempts
	changed  chan struct{} // closed with the next decision about a waiting key
}

// NewDesk returns the desk of a store.
func NewDesk(s store.Store, now func() time.Time) *Desk {
	return &Desk{store: s, now: now, attempts: newAttempts(), changed: make(chan struct{})}
}

// Invitation is what a token is to be good for.
type Invitation struct {
	Role      identity.Role
	Name      string
	Addresses []string
	Replace   bool // the name may have a key, which is worth nothing then
	Approve   bool
	ReadOnly  bool // of an admin: it may change nothing
	Life      time.Duration
}

// Invited is a token with its secret, which is known this once.
type Invited struct {
	Token
	Secret wire.Secret
}

// Invite makes tokens, all or none.
func (d *Desk) Invite(list []Invitation) ([]Invited, error) {
	now := d.now().UTC()
	tokens, err := d.list()
	if err != nil {
		return nil, err
	}
	change := store.Change{Put: make(map[string][]byte), If: make(map[string]uint64)}
	for _, e := range tokens { // what has ended goes at this occasion
		if !now.Before(e.Ends) {
			change.Delete = append(change.Delete, keyOf(e.ID))
		}
	}
	if len(tokens)-len(change.Delete)+len(list) > MaxTokens {
		return nil, fmt.Errorf("invite: there would be more than %d tokens: let some end, or make fewer", MaxTokens)
	}
	var made []Invited
	for _, in := range list {
		if in.Life < minLife || in.Life > MaxLife {
			return nil, errors.New("invite: a token is good for a minute to 7 days")
		}
		t := Invited{Token: Token{
			Role: in.Role, Name: in.Name, Addresses: in.Addresses, Replace: in.Replace, Approve: in.Approve, ReadOnly: in.ReadOnly,
			Made: now, Ends: now.Add(in.Life).Truncate(time.Second),
		}}
		rand.Read(t.ID[:])
		rand.Read(t.Secret[:])
		t.Hash = hashOf(t.Secret)
		value, err := json.Marshal(t.Token)
		if err != nil {
			return nil, err
		}
		change.Put[keyOf(t.ID)], change.If[keyOf(t.ID)] = value, 0
		made = append(made, t)
	}
	if _, err := d.store.Commit(change); err != nil {
		return nil, fmt.Errorf("invite: %w", err)
	}
	return made, nil
}

func keyOf(id wire.TokenID) string {
	text, _ := id.MarshalText()
	return prefix + string(text)
}

func hashOf(s wire.Secret) []byte {
	sum := sha256.Sum256(s[:])
	return sum[:]
}

// Claim is somebody's try at a token.
type Claim struct {
	ID     wire.TokenID
	Secret wire.Secret
	Asked  identity.ID // of the certificate request
	Key    identity.KeyHash
	From   netip.Addr
}

// Claim lets the key have the token, once and for all, and returns it. ErrWait says
// that approval is awaited, ErrToken that it fails; other errors are about the
// state, which is as it was.
func (d *Desk) Claim(c Claim) (Token, error) {
	now := d.now()
	if !d.mayTry(now, c) {
		return Token{}, ErrToken
	}
	for {
		t, err := d.claim(now, c)
		if errors.Is(err, store.ErrConflict) {
			continue // somebody else has changed it: see what it is now
		}
		if errors.Is(err, errGuess) {
			d.failed(now, c)
			return Token{}, ErrToken
		}
		return t, err
	}
}

func (d *Desk) claim(now time.Time, c Claim) (Token, error) {
	e, err := d.store.Get(keyOf(c.ID))
	if err != nil {
		return Token{}, err
	}
	var t Token
	if e.Revision > 0 {
		if err := json.Unmarshal(e.Value, &t); err != nil {
			return Token{}, fmt.Errorf("read state: the token %s is broken", c.ID)
		}
	} else {
		t.Hash = make([]byte, sha256.Size) // compared all the same, so that it takes as long
	}
	if subtle.ConstantTimeCompare(hashOf(c.Secret), t.Hash) != 1 || e.Revision == 0 {
		return Token{}, errGuess
	}
	waits := slices.ContainsFunc(t.Waiting, func(w Waiting) bool { return w.Key == c.Key })
	switch {
	case t.Rejected && waits:
		return Token{}, ErrRejected
	case t.Rejected || !now.Before(t.Ends) || c.Asked.Role != t.Role || c.Asked.Name != t.Name:
		return Token{}, ErrToken
	case t.Used == c.Key:
		return t, nil
	case !t.Used.IsZero():
		return Token{}, ErrToken
	case t.Approve:
		if waits {
			return t, ErrWait
		}
		if len(t.Waiting) == maxWaiting {
			return Token{}, ErrToken
		}
		t.Waiting = append(t.Waiting, Waiting{Key: c.Key, From: c.From.String(), Since: now.UTC().Truncate(time.Second)})
		if err := d.put(t, e.Revision); err != nil {
			return Token{}, err
		}
		return t, ErrWait
	}
	t.Used, t.UsedFrom = c.Key, c.From.String()
	return t, d.put(t, e.Revision)
}

// put writes a token if its revision is still the given one.
func (d *Desk) put(t Token, revision uint64) error {
	value, err := json.Marshal(t)
	if err != nil {
		return err
	}
	key := keyOf(t.ID)
	_, err = d.store.Commit(store.Change{Put: map[string][]byte{key: value}, If: map[string]uint64{key: revision}})
	return err
}

// Changed returns a channel that is closed with the next decision about any waiting
// key. Take it before Claim.
func (d *Desk) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

// Keep lets the key that has used a token claim it again for longer: at least half of
// the time until then.
func (d *Desk) Keep(id wire.TokenID, key identity.KeyHash, until time.Time) error {
	now, until := d.now(), until.UTC().Truncate(time.Second)
	for {
		e, err := d.store.Get(keyOf(id))
		if err != nil {
			return err
		}
		var t Token
		if e.Revision == 0 {
			return ErrToken
		}
		if err := json.Unmarshal(e.Value, &t); err != nil {
			return fmt.Errorf("read state: the token %s is broken", id)
		}
		if t.Used != key {
			return ErrToken
		}
		if t.Ends.Sub(now) >= until.Sub(now)/2 {
			return nil
		}
		t.Ends = until
		if err := d.put(t, e.Revision); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// Wake has all who wait look again.
func (d *Desk) Wake() { d.decided() }

// decided wakes all who wait.
func (d *Desk) decided() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.changed)
	d.changed = make(chan struct{})
}

// minPrefix is how many digits of a key an operator must give at least.
const minPrefix = 8

// Approve lets the waiting key whose hash begins with the digits have its token.
func (d *Desk) Approve(digits string) (Token, error) {
	return d.decide(digits, "approve", func(t *Token, w Waiting) { t.Used, t.UsedFrom, t.Waiting = w.Key, w.From, nil })
}

// Reject ends the token at which the key waits: whoever showed it has the secret.
func (d *Desk) Reject(digits string) (Token, error) {
	return d.decide(digits, "reject", func(t *Token, _ Waiting) { t.Rejected = true })
}

func (d *Desk) decide(digits, what string, change func(*Token, Waiting)) (Token, error) {
	if len(digits) < minPrefix {
		return Token{}, fmt.Errorf("%s: give at least %d digits of the key, as the device shows it", what, minPrefix)
	}
	for {
		t, err := d.tryDecide(strings.ToLower(digits), what, change)
		if !errors.Is(err, store.ErrConflict) {
			return t, err
		}
	}
}

func (d *Desk) tryDecide(digits, what string, change func(*Token, Waiting)) (Token, error) {
	tokens, err := d.list()
	if err != nil {
		return Token{}, err
	}
	var found *entry
	var who Waiting
	for i, t := range tokens {
		for _, w := range t.Waiting {
			text, _ := w.Key.MarshalText()
			if !strings.HasPrefix(string(text), digits) || t.Rejected || !d.now().Before(t.Ends) {
				continue
			}
			if found != nil {
				return Token{}, fmt.Errorf("%s: more than one key that waits begins with %s: give more digits", what, digits)
			}
			found, who = &tokens[i], w
		}
	}
	if found == nil {
		return Token{}, fmt.Errorf("%s: no key that waits begins with %s; see \"netport-server enrolments\"", what, digits)
	}
	change(&found.Token, who)
	if err := d.put(found.Token, found.revision); err != nil {
		return Token{}, err
	}
	d.decided()
	return found.Token, nil
}

// Void ends the tokens of a name, and returns how many could still have been used.
func (d *Desk) Void(role identity.Role, name string) (unused int, err error) {
	tokens, err := d.list()
	if err != nil {
		return 0, err
	}
	var change store.Change
	for _, t := range tokens {
		if t.Role == role && t.Name == name {
			change.Delete = append(change.Delete, keyOf(t.ID))
			if t.Used.IsZero() && d.now().Before(t.Ends) {
				unused++
			}
		}
	}
	if len(change.Delete) == 0 {
		return 0, nil
	}
	if _, err := d.store.Commit(change); err != nil {
		return 0, err
	}
	d.decided()
	return unused, nil
}

// Tokens returns the tokens that have not ended, by name.
func (d *Desk) Tokens() ([]Token, error) {
	entries, err := d.list()
	if err != nil {
		return nil, err
	}
	now := d.now()
	list := []Token{}
	for _, e := range entries {
		if now.Before(e.Ends) && !e.Rejected {
			list = append(list, e.Token)
		}
	}
	slices.SortFunc(list, func(a, b Token) int { return cmp.Or(cmp.Compare(a.Name, b.Name), a.Made.Compare(b.Made)) })
	return list, nil
}

// entry is a token and the revision it was read at.
type entry struct {
	Token
	revision uint64
}

func (d *Desk) list() ([]entry, error) {
	stored, err := d.store.List(prefix)
	if err != nil {
		return nil, err
	}
	list := make([]entry, 0, len(stored))
	for _, s := range stored {
		e := entry{revision: s.Revision}
		if err := json.Unmarshal(s.Value, &e.Token); err != nil {
			return nil, fmt.Errorf("read state: the entry %q: %w", s.Key, err)
		}
		list = append(list, e)
	}
	return list, nil
}

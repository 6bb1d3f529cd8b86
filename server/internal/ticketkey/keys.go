// Package ticketkey keeps the keys of standing tickets: sessions at a relay's shared
// ports that two portals hold in advance, for the time when no server can be asked.
//
// The server and a relay work a ticket's secrets out from a key (package ticket),
// so a relay is told the key once and of no ticket. Each relay has a key of its
// own, derived from one master key: what one relay knows opens no leg at another.
//
// A master key is used for Period. The next one is made, and given to the relays,
// a Grid before its first ticket, and the old one is kept until its last ticket
// has ended. The keys are in the store: a server that was restarted issues the same
// tickets, and a relay that comes back takes those that portals hold.
package ticketkey

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/store"
)

const (
	// Grid is how often tickets change. All that are issued between two lines of
	// the grid end at the same time, so two portals that were given their halves
	// hours apart, or by a server before and after a restart, hold the same session.
	Grid = grant.StampLife / 2
	// Life is the longest that a ticket lasts. The shortest is that of a stamp: who
	// holds a stamped grant holds a ticket as long.
	Life = grant.StampLife + Grid
	// Period is how long a key makes new tickets.
	Period = 7 * 24 * time.Hour

	storeKey = "ticket-keys"
)

// Ends returns the end of the tickets that are issued at the time now.
func Ends(now time.Time) time.Time {
	return now.UTC().Truncate(Grid).Add(Life)
}

// master is one key as it is stored.
type master struct {
	Key  []byte    `json:"key"`  // 32 bytes
	From time.Time `json:"from"` // when it makes its first ticket
}

// Keys are the master keys. They are safe for concurrent use.
type Keys struct {
	store store.Store

	mu       sync.Mutex // guards the following
	list     []master   // by From; at least one
	revision uint64
}

// Open reads the keys from a store, and makes the first one if there is none.
func Open(s store.Store, now time.Time) (*Keys, error) {
	e, err := s.Get(storeKey)
	if err != nil {
		return nil, err
	}
	k := &Keys{store: s, revision: e.Revision}
	if e.Revision == 0 {
		return k, k.save([]master{{newKey(), now.UTC()}})
	}
	if err := json.Unmarshal(e.Value, &k.list); err != nil {
		return nil, fmt.Errorf("read state: the entry %q: %w", storeKey, err)
	}
	if len(k.list) == 0 || slices.ContainsFunc(k.list, func(m master) bool { return len(m.Key) != len(wire.Secret{}) }) {
		return nil, fmt.Errorf("read state: the entry %q is broken", storeKey)
	}
	return k, nil
}

func newKey() []byte {
	b := make([]byte, len(wire.Secret{}))
	rand.Read(b)
	return b
}

// save writes a list and then makes it the one in use.
func (k *Keys) save(list []master) error {
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	revision, err := k.store.Commit(store.Change{
		If: map[string]uint64{storeKey: k.revision}, Put: map[string][]byte{storeKey: b},
	})
	if err != nil {
		return fmt.Errorf("keep ticket keys: %w", err)
	}
	k.list, k.revision = list, revision
	return nil
}

// Rotate makes the next key when it is time and drops those whose tickets have
// all ended. It is called now and then, much more often than once a Grid.
func (k *Keys) Rotate(now time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := slices.Clone(k.list)
	// A clock that was far ahead for a while must not stop the rotation.
	list = slices.DeleteFunc(list, func(m master) bool { return m.From.After(now.Add(Grid)) })
	if len(list) == 0 || now.Sub(list[len(list)-1].From) >= Period-Grid {
		from := now.UTC()
		if len(list) > 0 {
			from = from.Add(Grid)
		}
		list = append(list, master{newKey(), from})
	}
	for len(list) > 1 && now.Sub(list[1].From) >= Life {
		list = list[1:]
	}
	if slices.EqualFunc(list, k.list, func(a, b master) bool { return a.From.Equal(b.From) }) {
		return nil
	}
	return k.save(list)
}

// Of returns the keys of a relay, at most 4: the first is the one of new tickets.
func (k *Keys) Of(relay string, now time.Time) []wire.Secret {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := 0
	for i, m := range k.list {
		if !m.From.After(now) {
			at = i
		}
	}
	keys := []wire.Secret{derive(k.list[at], relay)}
	for i, m := range k.list {
		if i != at {
			keys = append(keys, derive(m, relay))
		}
	}
	return keys
}

func derive(m master, relay string) (s wire.Secret) {
	h := hmac.New(sha256.New, m.Key)
	h.Write([]byte("netport ticket relay\x00" + relay))
	copy(s[:], h.Sum(nil))
	return s
}

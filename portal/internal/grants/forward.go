package grants

import (
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// Of returns the permission of a grant that is held, or was until a moment ago.
func (k *Keeper) Of(id wire.GrantID) (grant.Permission, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, ok := k.set.ids[id]
	if !ok {
		return grant.Permission{}, false
	}
	p := k.set.pairs[key]
	if h := p.held[id]; h != nil {
		return h.grant.Permission, true
	}
	return p.current.Permission, true
}

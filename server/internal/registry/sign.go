package registry

import (
	"crypto/ed25519"
	"runtime"
	"sync"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// Sign signs permissions with all processors: it is the most of the work of a new
// policy.
func Sign(list []grant.Permission, policy ed25519.PrivateKey) []grant.Grant {
	signed := make([]grant.Grant, len(list))
	onAll(len(list), func(i int) { signed[i] = grant.Sign(list[i], policy) })
	return signed
}

// sign signs the version of a policy.
func (r *Registry) sign(a *Applied) {
	m := wire.GrantsComplete{Version: a.Version}.Sign(r.signer)
	a.Signature = m.Signature[:]
}

// onAll does n pieces of work with all processors.
func onAll(n int, do func(i int)) {
	var running sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		running.Go(func() {
			for i := w; i < n; i += workers {
				do(i)
			}
		})
	}
	running.Wait()
}

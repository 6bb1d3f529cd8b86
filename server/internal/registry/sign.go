package registry

import (
	"runtime"
	"sync"

	"github.com/netport/netport/proto/grant"
)

// signAll signs permissions with all processors: it is the most of the work of a new
// policy.
func (r *Registry) signAll(list []grant.Permission) []grant.Grant {
	signed := make([]grant.Grant, len(list))
	var running sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		running.Go(func() {
			for i := w; i < len(list); i += workers {
				signed[i] = grant.Sign(list[i], r.signer)
			}
		})
	}
	running.Wait()
	return signed
}

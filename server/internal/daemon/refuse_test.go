package daemon

import (
	"errors"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/wire"
)

// connectRefused connects a portal that must be turned away, and returns the
// reason it is told.
func connectRefused(r *rig, name string) wire.Reason {
	r.t.Helper()
	_, _, err := dialer[wire.ToPortal, wire.FromPortal](r, name, wire.ParseToPortal).Dial(r.t.Context(), r.cfg.Address)
	var bye *control.Goodbye
	if !errors.As(err, &bye) {
		r.t.Fatalf("%s: %v, want to be turned away", name, err)
	}
	return bye.Reason
}

package enrol

import "github.com/netport/netport/proto/wire"

// Refusal is an error that its subject may be told.
type Refusal struct {
	Reason wire.Reason
	Text   string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Reason.String() + ": " + r.Text }

package keeper

import (
	"fmt"
	"time"

	"github.com/netport/netport/proto/identity"
)

// Status is how the credentials are.
type Status struct {
	Ends        time.Time        `json:"ends_soon,omitzero"`           // the certificate; zero: not soon
	Renewal     string           `json:"renewal,omitempty"`            // why the last attempt failed
	Waits       time.Time        `json:"renewal_waits_since,omitzero"` // for an operator
	Key         identity.KeyHash `json:"key"`
	NextKey     identity.KeyHash `json:"next_key,omitzero"`                  // that waits for an operator
	Authorities uint64           `json:"authorities_version"`                // 0: those of the CA file
	Revocations uint64           `json:"revocations_epoch"`                  // 0: none
	Missing     int              `json:"revocations_not_held,omitempty"`     // there is no room for them
	Regression  *uint64          `json:"server_revocations_epoch,omitempty"` // of a server that has lost some
	Clock       time.Duration    `json:"clock_ahead_ns"`                     // of the machine, against the server's; negative: behind
}

// Status returns how the credentials are.
func (k *Keeper) Status() Status {
	s := Status{
		Key:         k.credentials.Key(),
		Revocations: k.credentials.Revocations().Epoch(), Clock: k.clock.Off(),
	}
	if leaf := k.credentials.Leaf(); Soon(k.clock.Now(), leaf) {
		s.Ends = leaf.NotAfter.UTC()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s.Authorities, s.Waits, s.Missing = k.version, k.waits, k.missing
	if !s.Waits.IsZero() {
		s.NextKey = k.next
	}
	if k.last != nil {
		s.Renewal = k.last.Error()
	}
	if k.regressed {
		behind := k.behind
		s.Regression = &behind
	}
	return s
}

// Lines says in words what is not as it should be, for people; none if all is well.
func (s Status) Lines() []string {
	var lines []string
	ends := ""
	if !s.Ends.IsZero() {
		ends = " that ends at " + s.Ends.Local().Format(time.DateTime)
	}
	switch {
	case s.Renewal != "":
		lines = append(lines, "the certificate"+ends+" was not renewed: "+s.Renewal)
	case ends != "" && s.Waits.IsZero():
		lines = append(lines, "the certificate"+ends+" was not renewed: no server was there, or it does not answer")
	}
	if !s.Waits.IsZero() {
		line := fmt.Sprintf("the next certificate waits for an operator to sign it since %s", s.Waits.Local().Format(time.DateTime))
		if ends != "" {
			line += "; there is one" + ends
		}
		if !s.NextKey.IsZero() {
			line += fmt.Sprintf(", for the key %x", s.NextKey[:])
		}
		lines = append(lines, line)
	}
	if s.Missing > 0 {
		lines = append(lines, fmt.Sprintf("%d revocations of the server are not held: there is no room for more than %d", s.Missing, identity.MaxRevocations))
	}
	if s.Regression != nil {
		lines = append(lines, fmt.Sprintf("epoch regression: the server has lost revocations (%d there, %d here); those held here go on", *s.Regression, s.Revocations))
	}
	if s.Clock.Abs() > maxOff {
		word := "ahead of"
		if s.Clock < 0 {
			word = "behind"
		}
		lines = append(lines, fmt.Sprintf("the clock of this machine is %v %s the server's", s.Clock.Abs(), word))
	}
	return lines
}

// maxOff is the difference of clocks that is worth a word.
const maxOff = 5 * time.Minute

package portmap

import "time"

// epoch is a router's clock, as its answers show it: seconds since it lost what it knew. One
// that goes other than ours shows that it has lost it again.
type epoch struct {
	known  bool
	server time.Duration
	client time.Time
	lost   bool // until it was asked for
}

// take takes what an answer says. pmp says by which protocol's rules.
func (e *epoch) take(seconds uint32, now time.Time, pmp bool) {
	server := time.Duration(seconds) * time.Second
	if e.known {
		passed, shown := now.Sub(e.client), server-e.server
		if pmp { // RFC 6886 section 3.6
			e.lost = shown < passed*7/8-2*time.Second
		} else { // RFC 6887 section 8.5
			e.lost = shown < -time.Second || passed+2*time.Second < shown-shown/16 || shown+2*time.Second < passed-passed/16
		}
	}
	e.known, e.server, e.client = true, server, now
}

func (e *epoch) restarted() bool {
	lost := e.lost
	e.lost = false
	return lost
}

package daemon

import (
	"fmt"
	"strings"
	"time"
)

// Router is what the network's router maps for this portal.
type Router struct {
	Gateway  string    `json:"gateway,omitempty"`  // empty: none is known
	Protocol string    `json:"protocol,omitempty"` // that it speaks; empty: none, or nothing is wanted now
	Mappings []Mapping `json:"mappings,omitempty"`
	Why      string    `json:"why,omitempty"` // why what is wanted is not mapped
}

// Mapping is one port that is reached from outside of the router.
type Mapping struct {
	Transport string    `json:"transport"`
	Port      uint16    `json:"port"`
	External  string    `json:"external"`
	Until     time.Time `json:"until"` // unless it is renewed
}

// router returns what the router maps.
func (p *Portal) router() *Router {
	if p.mapper == nil {
		return nil
	}
	s := p.mapper.State()
	r := &Router{Protocol: s.Protocol, Why: s.Why}
	if s.Gateway.IsValid() {
		r.Gateway = s.Gateway.String()
	}
	for _, m := range s.Mappings {
		r.Mappings = append(r.Mappings, Mapping{m.Transport.String(), m.Number, m.External.String(), m.Until.UTC()})
	}
	return r
}

// Text says it in one line, for people; "": nothing is wanted of the router.
func (r *Router) Text() string {
	switch {
	case r == nil:
		return ""
	case len(r.Mappings) > 0:
		var list []string
		for _, m := range r.Mappings {
			list = append(list, fmt.Sprintf("%s %s", m.External, m.Transport))
		}
		text := fmt.Sprintf("%s maps %s (%s)", r.Gateway, strings.Join(list, ", "), r.Protocol)
		if r.Why != "" {
			text += "; " + r.Why
		}
		return text
	case r.Why != "":
		return "no port is mapped: " + r.Why
	}
	return ""
}

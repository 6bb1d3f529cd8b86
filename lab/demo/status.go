package main

import (
	"context"
	"errors"
	"fmt"
)

// portalStatus is what the demo reads of "netport-portal status --json".
type portalStatus struct {
	Server struct {
		Connected bool `json:"connected"`
	} `json:"server"`
	Forwards []struct {
		Name  string `json:"name"`
		State string `json:"state"`
		Why   string `json:"why"`
	} `json:"forwards"`
	Tunnels []struct {
		Peer    string `json:"peer"`
		Up      bool   `json:"up"`
		Path    string `json:"path"`
		Relay   string `json:"relay"`
		Address string `json:"address"`
	} `json:"tunnels"`
}

// missing returns nil if the portal is connected and all the named forwards are
// up, else what is not.
func (st *portalStatus) missing(forwards ...string) error {
	if !st.Server.Connected {
		return errors.New("no connection to the server")
	}
	reasons := make(map[string]string) // why a forward is not up; empty if it is
	for _, f := range st.Forwards {
		if f.State != "up" {
			reasons[f.Name] = fmt.Sprintf("is %s: %s", f.State, f.Why)
		} else {
			reasons[f.Name] = ""
		}
	}
	for _, name := range forwards {
		switch reason, known := reasons[name]; {
		case !known:
			return fmt.Errorf("forward %s is unknown", name)
		case reason != "":
			return fmt.Errorf("forward %s %s", name, reason)
		}
	}
	return nil
}

// status asks the entry portal how it is.
func (s *story) status(ctx context.Context) (portalStatus, error) {
	var st portalStatus
	err := ask(ctx, &st, s.program("portal"), "status", "--config", s.config(entryName))
	return st, err
}

// untilReady waits until the server has the relays, and both forwards are up at the
// entry portal.
func (s *story) untilReady(ctx context.Context) error {
	err := until(ctx, readyLimit, func(ctx context.Context) error {
		var st struct {
			RelaysOnline int `json:"relays_online"`
		}
		if err := ask(ctx, &st, s.program("server"), "status", "--config", s.config("server")); err != nil {
			return err
		}
		if st.RelaysOnline < len(relays) {
			return fmt.Errorf("%d of %d relays are connected to the server", st.RelaysOnline, len(relays))
		}
		return nil
	})
	if err != nil {
		return s.relays[0].blame(fmt.Errorf("wait for the relays: %w", err))
	}
	err = until(ctx, readyLimit, func(ctx context.Context) error {
		st, err := s.status(ctx)
		if err != nil {
			return err
		}
		return st.missing(webForward, dnsForward)
	})
	if err != nil {
		return s.entry.blame(fmt.Errorf("wait for the forwards of %s: %w", entryName, err))
	}
	return nil
}

// way is how the tunnel to the exit portal goes.
type way struct{ path, relay, address string }

func (w way) String() string {
	return fmt.Sprintf("%s over %s at %s; TLS 1.3 end to end", w.path, w.relay, w.address)
}

// way asks the entry portal for it.
func (s *story) way(ctx context.Context) (way, error) {
	st, err := s.status(ctx)
	if err != nil {
		return way{}, s.entry.blame(err)
	}
	for _, t := range st.Tunnels {
		if t.Peer == exitName && t.Up {
			return way{t.Path, t.Relay, t.Address}, nil
		}
	}
	return way{}, s.entry.blame(fmt.Errorf("%s knows of no tunnel to %s", entryName, exitName))
}

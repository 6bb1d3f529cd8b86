package main

import (
	"context"
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
		return fmt.Errorf("no connection to the server")
	}
	states := make(map[string]string)
	for _, f := range st.Forwards {
		states[f.Name] = f.State
	}
	for _, name := range forwards {
		switch state, ok := states[name]; {
		case !ok:
			return fmt.Errorf("forward %s is unknown", name)
		case state != "up":
			return fmt.Errorf("forward %s is %s", name, state)
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

// untilReady waits until both forwards are up at the entry portal.
func (s *story) untilReady(ctx context.Context) error {
	err := until(ctx, readyLimit, func(ctx context.Context) error {
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

// path says how the tunnel to the exit portal goes.
func (s *story) path(ctx context.Context) (string, error) {
	st, err := s.status(ctx)
	if err != nil {
		return "", s.entry.blame(err)
	}
	for _, t := range st.Tunnels {
		if t.Peer == exitName && t.Up {
			return fmt.Sprintf("%s %s, %s", t.Path, t.Relay, t.Address), nil
		}
	}
	return "", s.entry.blame(fmt.Errorf("%s knows of no tunnel to %s", entryName, exitName))
}

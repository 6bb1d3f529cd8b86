package daemon

import "fmt"

// Server is a netport-server.
type Server struct{ *Daemon }

// Start starts the server and waits until it answers its command line.
func (s *Server) Start() {
	s.t.Helper()
	s.Launch()
	s.until("ready", func() error {
		_, err := s.output(s.Command("status"))
		return err
	})
}

// Decision is one line of the server's audit log.
type Decision struct {
	Event   string `json:"event"`
	Answer  string `json:"answer"`
	Reason  string `json:"reason"`
	Portal  string `json:"portal"` // that asked
	Peer    string `json:"peer"`
	Forward string `json:"forward"`
	Relay   string `json:"relay"`
	Session string `json:"session"` // its id
	Detail  string `json:"detail"`
}

// Audit returns the server's decisions so far, the oldest first. What it has just decided may not be there yet.
func (s *Server) Audit() []Decision {
	s.t.Helper()
	var decisions []Decision
	if err := s.ask(&decisions, "audit", "--last", "10000"); err != nil {
		s.t.Fatal(err)
	}
	return decisions
}

// relayReady reports why the server does not have the relay.
func (s *Server) relayReady(name string) error {
	var relays []struct {
		Name  string `json:"name"`
		State struct {
			Ready bool `json:"ready"`
		} `json:"state"`
	}
	if err := s.ask(&relays, "relays"); err != nil {
		return err
	}
	for _, r := range relays {
		if r.Name == name && r.State.Ready {
			return nil
		}
	}
	return fmt.Errorf("the server has the relays %+v", relays)
}

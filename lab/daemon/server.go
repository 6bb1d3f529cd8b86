package daemon

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Server is a netport-server.
type Server struct{ *Daemon }

// Start starts the server and waits until it answers its command line.
func (s *Server) Start() {
	s.t.Helper()
	s.launch()
	until(s.t, "server "+s.name+" answers", func() error {
		_, err := s.output(s.Command("status"))
		return err
	})
}

// Restart stops the server and starts it again.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.Start()
}

// Decision is one line of the server's audit log: who asked for what, and the answer.
type Decision map[string]any

// Audit returns the server's decisions so far, the oldest first.
func (s *Server) Audit() []Decision {
	s.t.Helper()
	var decisions []Decision
	for line := range strings.Lines(s.Run("audit", "--json")) {
		var d Decision
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			s.t.Fatalf("%s: audit line: %v in %s", s.name, err, line)
		}
		decisions = append(decisions, d)
	}
	return decisions
}

// member is a portal or relay as the server lists it.
type member struct {
	Name      string `json:"name"`
	Connected bool   `json:"connected"`
}

// connected reports why the server does not have the member that is asked for by "portals" or "relays".
func (s *Server) connected(list, name string) error {
	var members []member
	if err := s.ask(&members, list); err != nil {
		return err
	}
	for _, m := range members {
		if m.Name == name && m.Connected {
			return nil
		}
	}
	return fmt.Errorf("the server has of %s: %+v", list, members)
}

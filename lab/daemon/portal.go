package daemon

import (
	"fmt"

	"github.com/netport/netport/lab/topo"
)

// Portal is a netport-portal.
type Portal struct{ *Daemon }

// Start starts the portal and waits until it is connected to the server.
func (p *Portal) Start() {
	p.t.Helper()
	p.Launch()
	p.WaitConnected()
}

// Restart stops the portal and starts it again.
func (p *Portal) Restart() {
	p.t.Helper()
	p.Stop()
	p.Start()
}

// Status is what a portal says of itself, as far as the lab looks at it.
type Status struct {
	Server struct {
		Connected bool   `json:"connected"`
		Address   string `json:"address"`
		Transport string `json:"transport"`
	} `json:"server"`
	Forwards []Forward `json:"forwards"`
	Tunnels  []Tunnel  `json:"tunnels"`
}

// Forward is one forward in a portal's status.
type Forward struct {
	Name  string `json:"name"`
	Role  string `json:"role"`  // entry or exit
	State string `json:"state"` // up or down
	Why   string `json:"why"`
	Terms struct {
		Direct string `json:"direct"`
	} `json:"terms"`
}

// Tunnel is one tunnel in a portal's status.
type Tunnel struct {
	Peer     string `json:"peer"`
	Up       bool   `json:"up"`
	Path     string `json:"path"`
	Relay    string `json:"relay"`
	Carriers int    `json:"carriers"`
	Streams  int    `json:"streams"`
	Flows    int    `json:"flows"`
	Direct   struct {
		NAT string `json:"nat"` // of this portal; empty: it looks for no direct path
	} `json:"direct"`
}

// Status asks the portal how it is.
func (p *Portal) Status() Status {
	p.t.Helper()
	var s Status
	if err := p.ask(&s, "status"); err != nil {
		p.t.Fatal(err)
	}
	return s
}

// WaitConnected waits until the portal is connected to the server.
func (p *Portal) WaitConnected() {
	p.waitStatus("connected to the server", func(s Status) bool { return s.Server.Connected })
}

// WaitUp waits until the forward is up: its listener is open and its peer can be reached.
func (p *Portal) WaitUp(forward string) {
	p.t.Helper()
	p.waitStatus("with forward "+forward+" up", func(s Status) bool { return s.state(forward) == "up" })
}

// WaitGone waits until the portal knows no such forward any more.
func (p *Portal) WaitGone(forward string) {
	p.t.Helper()
	p.waitStatus("without forward "+forward, func(s Status) bool { return s.state(forward) == "" })
}

// state is that of a forward, empty if there is none.
func (s Status) state(forward string) string {
	for _, f := range s.Forwards {
		if f.Name == forward {
			return f.State
		}
	}
	return ""
}

func (p *Portal) waitStatus(what string, ready func(Status) bool) {
	p.t.Helper()
	p.until(what, func() error {
		var s Status
		if err := p.ask(&s, "status"); err != nil {
			return err
		}
		if !ready(s) {
			return fmt.Errorf("it says %+v", s)
		}
		return nil
	})
}

// Ping asks for the round trip to another portal and returns what the command printed.
func (p *Portal) Ping(peer string) string {
	p.t.Helper()
	return p.Run("ping", peer)
}

// Explain returns what the portal says about a forward, whether it works or not.
func (p *Portal) Explain(forward string) string {
	p.t.Helper()
	out, err := p.Command("explain", forward, "--wide").CombinedOutput()
	if len(out) == 0 {
		p.t.Fatalf("%s: explain %s: printed nothing (%v)", p.name, forward, err)
	}
	return string(out)
}

// Connect returns the command that joins its input and output with a target behind another portal, to be run by the
// caller.
func (p *Portal) Connect(peer, target string) *topo.Cmd {
	p.t.Helper()
	return p.Command("connect", peer, target)
}

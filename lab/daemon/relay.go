package daemon

// Relay is a netport-relay.
type Relay struct {
	*Daemon
	server *Server
}

// Start starts the relay and waits until the server has it.
func (r *Relay) Start() {
	r.t.Helper()
	r.launch()
	r.WaitReady()
}

// WaitReady waits until the server has the relay.
func (r *Relay) WaitReady() {
	r.t.Helper()
	r.until("connected to the server", func() error { return r.server.relayReady(r.name) })
}

// Restart stops the relay and starts it again.
func (r *Relay) Restart() {
	r.t.Helper()
	r.Stop()
	r.Start()
}

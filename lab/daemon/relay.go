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
	until(r.t, "relay "+r.name+" is connected", func() error { return r.server.connected("relays", r.name) })
}

// Restart stops the relay and starts it again.
func (r *Relay) Restart() {
	r.t.Helper()
	r.Stop()
	r.Start()
}

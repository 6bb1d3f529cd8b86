package splice

// Review resets the legs inside TLS whose portals were revoked since they were
// accepted. Bare legs have shown no certificate: they end with their session.
func (r *Relay) Review() {
	r.reviews.Add(1)
	for c := range r.revokedNow() {
		r.cfg.Log.Info("leg of a revoked portal dropped", "remote", c.remote)
		r.drop(c)
	}
}

// revokedNow returns the connections to be dropped. Checking costs signatures, so
// it is done without the lock.
func (r *Relay) revokedNow() map[*conn]bool {
	r.mu.Lock()
	var all []*conn
	for _, s := range r.sessions {
		for _, h := range s.waiting {
			all = append(all, h.conn)
		}
		for p := range s.pairs {
			all = append(all, p.legs[:]...)
		}
	}
	r.mu.Unlock()
	bad := make(map[*conn]bool)
	for _, c := range all {
		if r.revoked(c) {
			bad[c] = true
		}
	}
	return bad
}

func (r *Relay) revoked(c *conn) bool {
	return c.tls != nil && r.cfg.Recheck != nil && r.cfg.Recheck(c.tls.ConnectionState().PeerCertificates) != nil
}

// drop resets a leg, and the one that it is joined with.
func (r *Relay) drop(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sessions {
		for _, h := range s.waiting {
			if h.conn == c {
				r.takeLocked(h)
			}
		}
		for p := range s.pairs {
			if p.legs[0] == c || p.legs[1] == c {
				p.abort()
			}
		}
	}
	c.reset()
}

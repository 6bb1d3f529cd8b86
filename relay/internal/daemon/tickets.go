package daemon

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
)

const (
	// ticketHeader begins the file of ticket keys; a key follows in each line, as 64
	// hexadecimal digits, the newest first.
	ticketHeader = "netport ticket keys 1\n"
	maxTicketKey = 4 // as wire.TicketKeys
)

// loadTicketKeys takes up the keys that a server gave before the restart: the
// portals that need tickets have no server, and this relay may have none either.
func (d *Daemon) loadTicketKeys() {
	keys, err := readTicketKeys(d.cfg.TicketKeys)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return // no server has given any yet
	case err != nil:
		d.log.Warn("tickets are refused until a server is there", "error", err)
		return
	}
	d.ticketKeys = keys
	d.leases.SetTicketKeys(keys)
}

// setTicketKeys takes what the server has given, and keeps it for the next
// start. It is called by the goroutine that serves the connection.
func (d *Daemon) setTicketKeys(keys []wire.Secret) {
	if slices.Equal(keys, d.ticketKeys) {
		return
	}
	d.leases.SetTicketKeys(keys)
	b := []byte(ticketHeader)
	for _, k := range keys {
		b = append(hex.AppendEncode(b, k[:]), '\n')
	}
	if err := identity.ReplaceFile(d.cfg.TicketKeys, b, 0o600); err != nil {
		d.log.Error("ticket keys are not kept: a relay that is restarted while the server is away will refuse tickets", "error", err)
		return
	}
	d.ticketKeys = keys
}

func readTicketKeys(file string) ([]wire.Secret, error) {
	b, err := identity.ReadSecret(file)
	if err != nil {
		return nil, fmt.Errorf("%w; or delete it: the server gives the keys again", err)
	}
	lines, ok := bytes.CutPrefix(b, []byte(ticketHeader))
	var keys []wire.Secret
	for ok && len(lines) > 0 {
		var line []byte
		var k wire.Secret
		if line, lines, ok = bytes.Cut(lines, []byte("\n")); ok {
			n, err := hex.Decode(k[:], line[:min(len(line), 2*len(k))])
			ok = err == nil && n == len(k) && len(line) == 2*len(k)
			keys = append(keys, k)
		}
	}
	if !ok || len(keys) == 0 || len(keys) > maxTicketKey {
		return nil, fmt.Errorf("read %s: these are no ticket keys: delete it, the server gives them again", file)
	}
	return keys, nil
}

// take opens the session of a ticket that a leg from source has proven, unless it
// is open, or says why not.
func (d *Daemon) take(k lease.Ticket, source netip.Addr) drop.Reason {
	d.taking.Lock()
	defer d.taking.Unlock()
	if d.refusing() {
		return drop.Stopping
	}
	s, fresh, why := d.leases.Take(time.Now(), k, source)
	if !fresh {
		return why
	}
	if err := d.openPort(s); err != nil { // only if the relay stops
		d.leases.End(s.ID)
		return drop.Stopping
	}
	d.counts.opened.Add(byTicket)
	d.log.Info("session of a ticket opened", "session", s.ID, "source", source, "until", s.Ends)
	return drop.None
}

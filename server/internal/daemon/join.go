package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/enrol"
	"github.com/netport/netport/server/internal/pending"
)

const (
	// signTime is how often who waits for an operator hears that we are still here.
	signTime = 30 * time.Second
	// answerTime is how long one answer may take to be sent.
	answerTime = 10 * time.Second
	// maxWaiting is how many may wait for an operator at once.
	maxWaiting = 1000
)

// join serves one exchange of the enrolment protocol. early ends when the request must
// be here; proven says that its token was right.
func (d *daemon) join(ctx, early context.Context, c control.Channel, proven func()) error {
	defer c.NetConn().Close()
	from := addrOf(c.RemoteAddr())
	m, err := readEnrol(early, c)
	if err != nil {
		return err
	}
	joined, err := d.joined(ctx, c, m, from, proven)
	if err == nil {
		return answer(c, joined.Authorities, joined.Enrolled)
	}
	var refused *enrol.Refusal
	if !errors.As(err, &refused) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.log.Error("enrolment failed", "from", from, "error", err)
		refused = &enrol.Refusal{Reason: wire.ReasonInternal, Text: "the server could not do it; its log says why"}
	}
	d.often.Warn("enrolment refused", "from", from, "reason", refused.Reason, "error", err)
	if ok, _ := d.refusals.Spend(time.Now()); ok {
		d.service.Audit.Write(audit.Record{Event: "enrol", Answer: audit.Refused, From: from.String(), Reason: refused.Reason.String()})
	}
	return answer(c, wire.EnrolRefused{Reason: refused.Reason, Text: refused.Text})
}

// readEnrol reads the one message that who joins sends.
func readEnrol(ctx context.Context, c control.Channel) (wire.Enrol, error) {
	if by, ok := ctx.Deadline(); ok {
		c.SetReadDeadline(by)
	}
	stop := context.AfterFunc(ctx, func() { c.NetConn().Close() })
	defer stop()
	var header [wire.ControlHeaderLen]byte
	if _, err := io.ReadFull(c, header[:]); err != nil {
		return wire.Enrol{}, err
	}
	kind, n, err := wire.ParseControlHeader(header[:])
	if err != nil {
		return wire.Enrol{}, err
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c, body); err != nil {
		return wire.Enrol{}, err
	}
	m, err := wire.ParseFromJoiner(kind, body)
	if err != nil {
		return wire.Enrol{}, err
	}
	e, ok := m.(wire.Enrol)
	if !ok {
		return wire.Enrol{}, fmt.Errorf("a message of type %d came where Enrol was expected", kind)
	}
	return e, nil
}

// joined waits for what becomes of a request.
func (d *daemon) joined(ctx context.Context, c control.Channel, m wire.Enrol, from netip.Addr, proven func()) (admin.Joined, error) {
	if m.Version < wire.ControlVersion {
		return admin.Joined{}, &enrol.Refusal{Reason: wire.ReasonVersion, Text: wire.VersionText("control", "the server", wire.ControlVersion, "this program", m.Version)}
	}
	try := func() (admin.Joined, identity.KeyHash, error) { return d.service.Join(ctx, m, from) }
	if m.Token.IsZero() {
		peer, err := identity.PeerOf(c.ConnectionState())
		if err != nil {
			return admin.Joined{}, &enrol.Refusal{Reason: wire.ReasonToken, Text: "neither a token nor a certificate came"}
		}
		proven()
		try = func() (admin.Joined, identity.KeyHash, error) {
			joined, err := d.service.RenewLate(ctx, peer, m.CSR)
			return joined, peer.Key, err
		}
	}
	for waited := false; ; waited = true {
		decided := d.service.Desk.Changed()
		joined, key, err := try()
		if !errors.Is(err, enrol.ErrWait) {
			return joined, err
		}
		if !waited {
			if d.waiting.Add(1) > maxWaiting {
				d.waiting.Add(-1)
				return admin.Joined{}, &enrol.Refusal{Reason: wire.ReasonBusy, Text: "too many wait for an operator"}
			}
			defer d.waiting.Add(-1)
			proven()
			what := "enrolment waits for approval: netport-server enrolments"
			if errors.Is(err, pending.ErrWaits) {
				what = "enrolment waits for a signature: netport-server ca pending"
			}
			d.log.Info(what, "from", from, "key", key)
			d.service.Audit.Write(audit.Record{Event: "enrol", Answer: audit.Waiting, From: from.String(), Detail: "key " + key.String()})
		}
		if err := d.await(ctx, c, decided, key); err != nil {
			return admin.Joined{}, err
		}
	}
}

// await gives signs of life until an operator has decided something.
func (d *daemon) await(ctx context.Context, c control.Channel, decided <-chan struct{}, key identity.KeyHash) error {
	tick := time.NewTicker(signTime)
	defer tick.Stop()
	for {
		if err := answer(c, wire.EnrolWait{Key: key}); err != nil {
			return err
		}
		select {
		case <-decided:
			return nil
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func answer(c control.Channel, messages ...wire.Message) error {
	var b []byte
	for _, m := range messages {
		b = wire.AppendMessage(b, m)
	}
	c.SetWriteDeadline(time.Now().Add(answerTime))
	_, err := c.Write(b)
	return err
}

func addrOf(a net.Addr) netip.Addr {
	if t, ok := a.(interface{ AddrPort() netip.AddrPort }); ok { // TCP's or UDP's
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

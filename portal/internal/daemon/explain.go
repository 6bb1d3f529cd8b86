package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/netport/netport/portal/internal/entry"
	"github.com/netport/netport/portal/internal/grants"
	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// explainTime bounds the explanation of one pair of ends.
const explainTime = 25 * time.Second

// ExplainArgs names the forward to explain.
type ExplainArgs struct {
	Forward string `json:"forward"`
}

// Explanation follows a forward from hop to hop, as far as it goes.
type Explanation struct {
	Forward    string `json:"forward"`
	Entry      string `json:"entry,omitempty"`
	Listen     string `json:"listen,omitempty"`
	Exit       string `json:"exit,omitempty"`
	Target     string `json:"target,omitempty"`
	Works      bool   `json:"works"`
	Steps      []Step `json:"steps"`
	Conclusion string `json:"conclusion"` // where it fails, and what to do there
}

// Step is one hop.
type Step struct {
	What  string `json:"what"`
	State string `json:"state"` // ok, failed, or unsure: it is bad, but may not matter
	Text  string `json:"text"`
}

// The states of a step.
const (
	StepOK     = "ok"
	StepFailed = "failed"
	StepUnsure = "unsure"
)

func (e *Explanation) step(state, what, format string, args ...any) {
	e.Steps = append(e.Steps, Step{what, state, fmt.Sprintf(format, args...)})
}

// fail adds the step at which the forward fails and says where that is and
// what to do.
func (e *Explanation) fail(what, text, conclusion string) Explanation {
	e.step(StepFailed, what, "%s", text)
	e.Conclusion = conclusion
	return *e
}

func (p *Portal) explain(ctx context.Context, raw json.RawMessage) (any, error) {
	var args ExplainArgs
	if err := json.Unmarshal(raw, &args); err != nil {
		return nil, fmt.Errorf("read arguments: %w", err)
	}
	var list []Explanation
	for _, g := range p.keeper.Forwards() {
		if g.Forward != args.Forward {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, explainTime)
		if g.Entry.Name == p.credentials.ID.Name {
			list = append(list, p.explainEntry(ctx, g))
		} else {
			list = append(list, p.explainExit(ctx, g))
		}
		cancel()
	}
	if len(list) == 0 {
		list = append(list, p.explainUnknown(args.Forward))
	}
	return list, nil
}

// explainUnknown explains a forward of which this portal has no grant.
func (p *Portal) explainUnknown(name string) Explanation {
	e := Explanation{Forward: name}
	self := p.credentials.ID.Name
	server := p.server(&e)
	switch {
	case server.Policy == 0 && !server.Connected:
		return e.fail("grant", "this portal has no grants: it has not reached a server since it started", p.serverGone())
	case server.Policy == 0:
		return e.fail("grant", "the server has not sent the grants of this portal yet", fmt.Sprintf("It fails at the server: see \"netport-server portals\" for %s.", self))
	}
	if refused := p.refusals(func(r grants.Refusal) bool { return r.Peer == "" && (r.Forward == name || r.Forward == "") }); len(refused) > 0 {
		return e.fail("grant", refusalText(refused[0]), refusalAdvice(name, self))
	}
	var names []string
	for _, f := range p.forwards() {
		names = append(names, f.Name)
	}
	have := "It has no forward at all."
	if len(names) > 0 {
		have = "It has: " + strings.Join(names, ", ") + "."
	}
	return e.fail("grant", fmt.Sprintf("policy version %d gives %s no forward %q", server.Policy, self, name),
		fmt.Sprintf("It fails at the server's policy: put the forward %q with the portal %s there and run \"netport-server policy apply\". %s", name, self, have))
}

func refusalText(r Refusal) string {
	from := "the server"
	if r.Peer != "" {
		from = r.Peer
	}
	return fmt.Sprintf("what %s brought at %s was refused: %s: %s", from, stamp(r.At), r.Reason, r.Text)
}

// refusalAdvice says what to do about a grant that was not taken.
func refusalAdvice(name, self string) string {
	return fmt.Sprintf("It fails at %s, which does not take the grant for %q that the server has: compare policy_key in its config with the server's (\"netport-server status\"), the key of %s with the one that the policy names, and the policy versions.", self, name, self)
}

// refusedPeers adds what the other portal of a forward was refused.
func (p *Portal) refusedPeers(e *Explanation, g grant.Grant) {
	for _, r := range p.refusals(func(r grants.Refusal) bool {
		return r.Peer == g.Entry.Name && (r.Forward == g.Forward || r.Forward == "")
	}) {
		e.step(StepUnsure, "refused", "%s", refusalText(r))
	}
}

// server adds the step of the server's connection.
func (p *Portal) server(e *Explanation) (s struct {
	Connected bool
	Policy    uint64
}) {
	status := p.client.Status()
	s.Connected, s.Policy = status.Connected, status.Policy
	if status.Connected {
		e.step(StepOK, "server", "connected to %s at %s since %s", status.Name, status.Place(), stamp(status.Since))
	} else {
		e.step(StepUnsure, "server", "not connected since %s; tried: %s", stamp(status.Since), strings.Join(status.Servers, ", "))
	}
	return s
}

func (p *Portal) serverGone() string {
	return fmt.Sprintf("It fails between %s and the server: check that the server runs at %s and that this machine's network lets it through; the log of this portal has the error of each attempt.",
		p.credentials.ID.Name, strings.Join(p.client.Status().Servers, ", "))
}

// begin begins the explanation of a grant with this portal itself.
func (p *Portal) begin(g grant.Grant) Explanation {
	e := Explanation{Forward: g.Forward, Entry: g.Entry.Name, Listen: g.Listen.String(), Exit: g.Exit.Name, Target: g.Target.String()}
	state, leaf := StepOK, p.credentials.Leaf()
	if p.credentials.Now().After(leaf.NotAfter) {
		state = StepUnsure
	}
	e.step(state, "portal", "%s runs since %s, its certificate ends at %s", p.credentials.ID.Name, stamp(p.started), stamp(leaf.NotAfter))
	for _, line := range p.identity.Status().Lines() {
		e.step(StepUnsure, "identity", "%s", line)
	}
	return e
}

// held adds the step of the grant and reports whether it holds.
func (p *Portal) held(e *Explanation, g grant.Grant) bool {
	if g.Valid(p.credentials.Now()) != wire.ReasonNone {
		e.fail("grant", p.invalid(g), fmt.Sprintf("It fails at %s: %s.", p.credentials.ID.Name, p.invalid(g)))
		return false
	}
	e.step(StepOK, "grant", "held, of policy version %d, valid until %s", g.Version, stamp(g.Ends()))
	if t := termsOf(g); t != nil {
		e.step(StepOK, "terms", "%s", t)
	}
	return true
}

// String writes the terms for people.
func (t *Terms) String() string {
	var list []string
	add := func(is bool, format string, args ...any) {
		if is {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	add(t.Hours != "", "hours %s", t.Hours)
	add(t.Clients != "", "clients %s", t.Clients)
	add(t.Direct != "", "direct %s", t.Direct)
	add(t.Rate != 0, "at most %d bytes a second each way", t.Rate)
	add(t.Streams != 0, "at most %d at once", t.Streams)
	add(t.Month != 0, "at most %d bytes a month", t.Month)
	return strings.Join(list, "; ")
}

// explainEntry follows a forward from its listener here to its target.
func (p *Portal) explainEntry(ctx context.Context, g grant.Grant) Explanation {
	e := p.begin(g)
	self := p.credentials.ID.Name
	p.server(&e)
	if !p.held(&e, g) {
		return e
	}
	for _, s := range p.entry.States() {
		switch {
		case grants.PairOf(s.Grant.Permission) != grants.PairOf(g.Permission):
		case s.Listening:
			e.step(StepOK, "listener", "open at %s since %s", g.Listen, stamp(s.Since))
			if s.Forbidden > 0 {
				e.step(StepUnsure, "clients", "%d connections or datagrams came from addresses that are not granted (granted: %s); they were refused", s.Forbidden, g.Clients)
			}
			if s.Foreign > 0 {
				e.step(StepUnsure, "clients", "%d connections were not of the users that listen.users in the configuration names; they were refused", s.Foreign)
			}
			if s.Targets > 1 {
				e.step(StepOK, "targets", "%s", rankText(s))
			}
		default:
			return e.fail("listener", s.Error, fmt.Sprintf("It fails at %s: %s.", self, s.Error))
		}
	}
	switch online, known := p.client.Online(g.Exit.Name); {
	case !known:
		e.step(StepUnsure, "exit portal", "the server has not said whether %s is connected", g.Exit.Name)
	case online:
		e.step(StepOK, "exit portal", "the server says %s is connected", g.Exit.Name)
	default:
		e.step(StepUnsure, "exit portal", "the server says %s is not connected", g.Exit.Name)
	}
	if s, _, ok := p.pool.Live(g.Exit.Name); ok && !s.Waiting.IsZero() && s.Streams+s.Flows > 0 {
		e.step(StepUnsure, "tunnel", "%s", waiting(s))
	}
	t, err := p.pool.Tunnel(ctx, g.Exit.Name, g.ID())
	if err != nil {
		return e.fail("tunnel", err.Error(), p.tunnelAdvice(g.Exit.Name, err))
	}
	if err := p.path(g.Exit.Name, g.Terms); err != nil {
		return e.fail("tunnel", err.Error(), fmt.Sprintf("It fails at the policy: %v.", err))
	}
	rtt, err := t.Ping(ctx)
	if err != nil {
		return e.fail("tunnel", err.Error(), fmt.Sprintf("It fails between %s and %s: the tunnel gives no answer; try again in a moment.", self, g.Exit.Name))
	}
	s, _, _ := p.pool.Live(g.Exit.Name)
	e.step(StepOK, "tunnel", "session %s, path %s %s at %s, round trip %v", s.Session, s.Path, where(s), s.Address, rtt.Round(10*time.Microsecond))
	said, err := t.Probe(ctx, g.ID(), g.AppendTo(nil))
	if err != nil {
		return e.fail("target", p.blame(g, err).Error(), targetAdvice(g, err))
	}
	if said != "" {
		said = " at " + said
	}
	if g.Target.Datagram() {
		e.step(StepOK, "target", "%s would send to it%s; whether anyone listens there no one can ask", g.Exit.Name, said)
	} else {
		e.step(StepOK, "target", "%s reached it%s", g.Exit.Name, said)
	}
	e.Works = true
	e.Conclusion = fmt.Sprintf("It works, from %s at %s to %s behind %s.", g.Listen, self, g.Target, g.Exit.Name)
	return e
}

// rankText says what a target is among those of its listener.
func rankText(s entry.State) string {
	text := fmt.Sprintf("one of %d, with rank %d; new connections go to another", s.Targets, s.Grant.Rank)
	if s.InUse {
		text = fmt.Sprintf("one of %d, with rank %d; new connections go to this one", s.Targets, s.Grant.Rank)
	}
	if s.Failed != "" {
		text += "; it is passed over for a moment: " + s.Failed
	}
	return text
}

// explainExit follows what this portal does for a forward as its exit.
func (p *Portal) explainExit(ctx context.Context, g grant.Grant) Explanation {
	e := p.begin(g)
	self := p.credentials.ID.Name
	p.server(&e)
	if !p.held(&e, g) {
		return e
	}
	p.refusedPeers(&e, g)
	if g.Month != 0 {
		use := p.exit.Use(g)
		e.step(StepOK, "month", "%d bytes of %d are used; the month ends at %s", use.Month, g.Month, stamp(use.Until))
	}
	if reason, err := p.exit.Try(ctx, g); err != nil {
		return e.fail("target", err.Error(), targetAdvice(g, &tunnel.EndError{Peer: true, Reason: reason, Text: err.Error()}))
	}
	e.step(StepOK, "target", "%s dialled %s", self, g.Target)
	reached, how := p.reach(g.Entry.Name)
	if !reached {
		return e.fail("entry portal", how, fmt.Sprintf("It works at %s; at its other end: %s.", self, how))
	}
	e.step(StepOK, "entry portal", "%s", how)
	e.Works = true
	e.Conclusion = fmt.Sprintf("It works at %s, which is its exit; ask %s for the whole way: netport-portal explain %s", self, g.Entry.Name, g.Forward)
	return e
}

// tunnelAdvice says where it fails that there is no tunnel, and what to do.
func (p *Portal) tunnelAdvice(exit string, err error) string {
	self := p.credentials.ID.Name
	reason := wire.ReasonTimeout
	var none *peers.Unavailable
	if errors.As(err, &none) {
		reason = none.Reason
	}
	switch reason {
	case wire.ReasonServerGone:
		return p.serverGone()
	case wire.ReasonPeerOffline:
		return fmt.Sprintf("It fails at %s: that portal is not connected to the server; start netport-portal there, or read its log.", exit)
	case wire.ReasonNoRelay:
		return "It fails at the relay: none is connected to the server; start netport-relay, and see \"netport-server relays\"."
	case wire.ReasonRelayRefused, wire.ReasonBusy:
		return "It fails at the relay: it takes no more sessions now; see \"netport-server relays\" and the relay's log."
	case wire.ReasonNotDirect:
		return fmt.Sprintf("It fails at the policy: %v.", err)
	case wire.ReasonWrongPeer:
		return fmt.Sprintf("It fails at %s: it has another key than the policy knows; apply the policy again if its identity was issued anew on purpose.", exit)
	case wire.ReasonNotGranted, wire.ReasonRevoked:
		return fmt.Sprintf("It fails at the server: it does not let %s and %s meet; see \"netport-server audit\".", self, exit)
	case wire.ReasonForbidden:
		return fmt.Sprintf("It fails at %s: the server names a relay at an address that is not dialled; check the relay's address at the server.", self)
	}
	return fmt.Sprintf("It fails between %s, the relay and %s: a session was opened and no tunnel came up; check that both machines reach the relay's ports, and read the logs of both portals and of the relay.", self, exit)
}

// targetAdvice says where it fails that the target is not reached, and what to
// do.
func targetAdvice(g grant.Grant, err error) string {
	var end *tunnel.EndError
	if !errors.As(err, &end) {
		return fmt.Sprintf("It fails between %s and %s: the tunnel broke; try again.", g.Entry.Name, g.Exit.Name)
	}
	at, do := g.Exit.Name, "read the log of that portal."
	switch end.Reason {
	case wire.ReasonTargetRefused:
		do = fmt.Sprintf("nothing listens at %s; start the service there, or correct the forward's target.", g.Target)
	case wire.ReasonTargetTimeout:
		do = fmt.Sprintf("%s does not answer; check that its machine is on and that no firewall drops what comes from %s.", g.Target, g.Exit.Name)
	case wire.ReasonTargetUnknown:
		do = fmt.Sprintf("the name in %s does not resolve there; correct it, or that machine's name server.", g.Target)
	case wire.ReasonTargetUnreached:
		do = fmt.Sprintf("that machine has no way to %s; check its network, or the socket's path.", g.Target)
	case wire.ReasonTargetLocal:
		do = "its system refused the dial (descriptors, ports or rights); its log says which."
	case wire.ReasonLocalList:
		do = fmt.Sprintf("the [dial] list in its config does not admit %s; add it there and restart that portal.", g.Target)
	case wire.ReasonForbidden:
		do = fmt.Sprintf("%s leads to an address that is never dialled by name, or only where its [dial] list names it outright; its log says which.", g.Target)
	case wire.ReasonGrantRemoved, wire.ReasonNotGranted:
		do = "it does not hold this grant; check that it is connected to the server (\"netport-portal status\" there)."
	case wire.ReasonGrantExpired:
		do = "the grant is over by its clock; check that clock, and that it is connected to the server."
	case wire.ReasonOutsideHours:
		do = "the grant has hours, and by its clock it is none of them; check that clock, and the policy's hours."
	case wire.ReasonLimit:
		do = fmt.Sprintf("a limit of the grant is reached (%s); wait, or change the forward's limits in the policy.", end.Text)
	case wire.ReasonNotDirect:
		do = "the policy's direct does not allow the paths there are; \"netport-portal status --wide\" says which direct ones were tried."
	case wire.ReasonBadSignature:
		do = "it trusts another policy key or stamp key; check policy_key in its config."
	}
	if !end.Peer {
		at, do = g.Entry.Name, "read the log of this portal."
	}
	return fmt.Sprintf("It fails at %s: %s", at, do)
}

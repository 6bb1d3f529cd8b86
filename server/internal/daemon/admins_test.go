package daemon

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/gate"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/registry"
)

// admin has an admin join, and keeps its credentials.
func (r *rig) admin(name string, ask admin.InviteRequest) *identity.Credentials {
	r.t.Helper()
	ask.Role, ask.Name = identity.Admin, name
	c, err := r.joiner(r.invite(ask)).join()
	if err != nil {
		r.t.Fatal(err)
	}
	r.credentials[name] = c
	return c
}

// door opens a connection with the protocol of admins.
func (r *rig) door(name string) *tls.Conn {
	r.t.Helper()
	c := tls.Client(r.raw(), r.credentials[name].ClientTLS(identity.ProtocolAdmin, identity.Expect(identity.Server, "")))
	if err := c.HandshakeContext(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// far asks as an admin.
func (r *rig) far(name, command string, args, result any) error {
	r.t.Helper()
	c := r.door(name)
	defer c.Close()
	return local.CallOver(r.t.Context(), c, command, args, result)
}

// request is a request as it is sent.
func request(command, args string) []byte {
	body := fmt.Sprintf(`{"command":%q,"args":%s}`, command, args)
	b := binary.BigEndian.AppendUint16(nil, 1)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(body))), body...)
}

// wantRefused wants a connection to end without any answer.
func wantRefused(t *testing.T, what string, c *tls.Conn) {
	t.Helper()
	b, err := io.ReadAll(c)
	if len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: answered with %q, %v", what, b, err)
	}
}

// Whoever is revoked loses what he has open, before he has said all of it, and comes in
// no more; so does a key whose name has another one.
func TestRevokedAdminLosesWhatIsOpen(t *testing.T) {
	r := newRig(t, "witness")
	r.admin("ann", admin.InviteRequest{})
	r.admin("bo", admin.InviteRequest{})
	ask := request(admin.CommandInvite, `{"role":"portal","name":"thief","life":3600000000000}`)
	open, silent := r.door("ann"), r.door("ann")
	if _, err := open.Write(ask[:len(ask)-1]); err != nil {
		t.Fatal(err)
	}
	var revoked admin.RevokedResult
	if err := r.far("bo", admin.CommandRevoke, admin.RevokeRequest{Role: identity.Admin, Name: "ann"}, &revoked); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, "a request that was under way", open)
	wantRefused(t, "a connection without one", silent)
	wantRefused(t, "a new connection", r.door("ann"))

	// A key that was replaced is not revoked: what it had begun is refused when it is here.
	begun := r.door("bo")
	if _, err := begun.Write(ask[:len(ask)-1]); err != nil {
		t.Fatal(err)
	}
	old := r.credentials["bo"]
	r.admin("bo", admin.InviteRequest{Replace: true})
	begun.Write(ask[len(ask)-1:])
	if b, _ := io.ReadAll(begun); !bytes.Contains(b, []byte("has another key now")) {
		t.Errorf("a request of a key that was replaced: %q", b)
	}
	fresh := r.credentials["bo"]
	r.credentials["bo"] = old
	wantRefused(t, "a key that was replaced", r.door("bo"))
	r.credentials["bo"] = fresh
	var tokens []struct{ Name string }
	if err := r.far("bo", admin.CommandEnrolments, struct{}{}, &tokens); err != nil || slices.ContainsFunc(tokens, func(e struct{ Name string }) bool { return e.Name == "thief" }) {
		t.Errorf("tokens %v, %v", tokens, err)
	}
}

// A read-only admin sees all and changes nothing, and that he tried is in the audit log.
func TestReadOnlyAdminChangesNothing(t *testing.T) {
	r := newRig(t, "witness")
	r.admin("bo", admin.InviteRequest{ReadOnly: true})
	may := []string{
		CommandStatus, CommandPortals, CommandRelays, CommandSessions, admin.CommandAdmins, admin.CommandEnrolments, admin.CommandCAStatus,
		admin.CommandCAPending, admin.CommandShow, admin.CommandDiff, admin.CommandExplain, admin.CommandAllowed, admin.CommandSignAsk,
		admin.CommandAudit, admin.CommandVerify,
	}
	for command := range (&admin.Service{}).Commands() {
		err := r.far("bo", command, struct{}{}, new(any))
		refused := err != nil && strings.Contains(err.Error(), "is a read-only admin")
		if want := !slices.Contains(may, command); refused != want {
			t.Errorf("%s: %v, want it refused: %t", command, err, want)
		}
	}
	for _, command := range []string{CommandStatus, CommandPortals, CommandRelays, CommandSessions} {
		if err := r.far("bo", command, struct{}{}, new(any)); err != nil {
			t.Errorf("%s: %v", command, err)
		}
	}
	for step, want := range map[string]bool{admin.PolicyCheck: false, admin.PolicyTest: false, admin.PolicyApply: true} {
		ask := applying(nil)
		ask.Step = step
		err := r.far("bo", admin.CommandPolicy, ask, new(admin.PolicyResult))
		if (err != nil) != want {
			t.Errorf("policy %s: %v, want it refused: %t", step, err, want)
		}
	}
	r.records("of attempts", func(a audit.Record) bool {
		return a.Event == "command" && a.Answer == audit.Refused && a.By == "admin/bo" && strings.Contains(a.Detail, admin.CommandRevoke)
	})
}

// What is sent in place of a request is answered with a line, or not at all, and costs
// nothing by the length that it says.
func TestBrokenRequestsOfAdmins(t *testing.T) {
	r := newRig(t, "witness")
	r.admin("ann", admin.InviteRequest{})
	frame := func(kind uint16, length uint32, body string) []byte {
		return append(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, kind), length), body...)
	}
	for what, tt := range map[string]struct {
		sent []byte
		want string
	}{
		"no JSON":             {frame(1, 3, "abc"), "not JSON"},
		"an unknown command":  {request("reboot", "{}"), `no command "reboot"`},
		"odd arguments":       {request(admin.CommandRevoke, `[1]`), "not understood"},
		"another frame":       {frame(9, 2, "{}"), ""},
		"4 GB":                {frame(1, 1<<32-1, ""), ""},
		"less than announced": {frame(1, 100, "{}"), ""},
		"nothing":             {nil, ""},
	} {
		c := r.door("ann")
		c.Write(tt.sent)
		c.CloseWrite()
		b, err := io.ReadAll(c)
		if errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(string(b), tt.want) || tt.want == "" && len(b) > 0 {
			t.Errorf("%s: answered with %q, %v; want %q", what, b, err, tt.want)
		}
	}
	r.wantServing()
}

// Neither strangers without a word, nor another admin who keeps all his requests open, keep
// an admin out.
func TestOthersKeepNoAdminOut(t *testing.T) {
	r := newRig(t, "witness")
	r.admin("ann", admin.InviteRequest{})
	r.admin("bo", admin.InviteRequest{ReadOnly: true})
	for range 3 * maxAsking {
		r.door("bo").Write([]byte{0})
	}
	for range 2 * gate.PerPrefix {
		r.raw().Write([]byte{22, 3, 1})
	}
	begin := time.Now()
	var list []registry.Admin
	if err := r.far("ann", admin.CommandAdmins, struct{}{}, &list); err != nil || len(list) != 2 {
		t.Errorf("admins %v, %v", list, err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("an admin needed %v", took)
	}
	r.wantServing()
}

// Only an enrolled admin gets in where admins do, and an admin gets in nowhere else; his
// certificate is good for no server.
func TestDoorOfAdminsIsForAdmins(t *testing.T) {
	r := newRig(t, "witness", "ann", "relay-1")
	own := r.admin("root", admin.InviteRequest{})
	for _, name := range []string{"ann", "relay-1"} {
		wantRefused(t, name, r.door(name))
	}
	c := tls.Client(r.raw(), own.ClientTLS(identity.ProtocolControl, identity.Expect(identity.Server, "")))
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	wantRefused(t, "an admin at the control protocol", c)
	if got := own.Leaf().ExtKeyUsage; !slices.Equal(got, identity.Usages(identity.Admin)) {
		t.Errorf("extended key usages %v", got)
	}
	stranger, err := ca.Load("example.org", r.cfg.CA, r.cfg.CAKey, "", time.Now) // under the right CA, and not enrolled
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"root", "eve"} {
		chain, err := stranger.Issue(t.Context(), ca.Order{Role: identity.Admin, Name: name, Public: key.Public(), Life: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		if r.credentials["stranger"], err = identity.NewCredentials(chain, key, own.Authorities(), nil); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, "a certificate of "+name+" for a key that is not enrolled", r.door("stranger"))
	}
	var list []registry.Admin
	if err := r.far("root", admin.CommandAdmins, struct{}{}, &list); err != nil || len(list) != 1 {
		t.Errorf("admins %v, %v", list, err)
	}
}

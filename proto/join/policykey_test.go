package join

import (
	"bytes"
	"crypto/ed25519"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/invite"
)

// TestTokenForAnotherPolicyKeyIsRefused: a thief makes tokens that his server honours;
// who knows the policy key takes none of them, and asks nobody.
func TestTokenForAnotherPolicyKeyIsRefused(t *testing.T) {
	key := func(n byte) ed25519.PublicKey {
		return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	}
	token, err := invite.New(identity.Portal, "ann", identity.Fingerprint{1}, key(1), []string{"127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, flag, want string }{
		{"another", grant.FormatKey(key(2)), "the token is for the policy key " + grant.FormatKey(key(1))},
		{"none", "abc", "--policy-key"},
		{"the right one", grant.FormatKey(key(1)), "127.0.0.1:1"}, // where nobody listens
		{"any", "", "127.0.0.1:1"},
	} {
		c := Command(identity.Portal, filepath.Join(t.TempDir(), "config.toml"), identity.KeyFiles{}, nil)
		c.SetIn(strings.NewReader(token.Reveal()))
		c.SetOut(io.Discard)
		c.SetErr(io.Discard)
		c.SetArgs([]string{"--policy-key", tt.flag})
		if err := c.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

package invite

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

func token() Token {
	return Token{
		Role: identity.Portal, Name: "ann", Authority: identity.Fingerprint(bytes.Repeat([]byte{0xfa}, 32)),
		Policy: ed25519.PublicKey(bytes.Repeat([]byte{0x70}, 32)),
		ID:     wire.TokenID(bytes.Repeat([]byte{0x71}, 16)), Secret: wire.Secret(bytes.Repeat([]byte{0xa0}, 32)),
		Servers: []string{"np.example.org:8443", "192.0.2.7"},
	}
}

// golden is the text of token(): tokens that were printed by one version are read
// by another.
const golden = "netport-join-AgEAA2Fubvr6-vr6-vr6-vr6-vr6-vr6-vr6-vr6-vr6-vr6-vr6cHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBxcXFxcXFxcXFxcXFxcXFxoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKAAAgATbnAuZXhhbXBsZS5vcmc6ODQ0MwAJMTkyLjAuMi43ygToow"

func TestTokenIsItsGoldenText(t *testing.T) {
	if got := token().Reveal(); got != golden {
		t.Errorf("got  %s\nwant %s", got, golden)
	}
	got, err := Parse([]byte(" \n" + golden[:60] + "\r\n" + golden[60:] + "\n")) // as a terminal breaks lines
	if err != nil || !reflect.DeepEqual(got, token()) {
		t.Errorf("read %+v, %v", got, err)
	}
}

func TestTokensDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		tok, err := New(identity.Relay, "r1", token().Authority, token().Policy, token().Servers)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Parse([]byte(tok.Reveal())); err != nil || !reflect.DeepEqual(got, tok) {
			t.Fatalf("read %+v, %v; want %+v", got, err, tok)
		}
		seen[string(tok.ID[:])], seen[string(tok.Secret[:])] = true, true
	}
	if len(seen) != 200 {
		t.Errorf("%d ids and secrets in 100 tokens", len(seen))
	}
}

func TestBadTokensAreRefusedWithoutRepeatingThem(t *testing.T) {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(golden, prefix))
	if err != nil {
		t.Fatal(err)
	}
	changed := func(f func(*Token)) string {
		tok := token()
		f(&tok)
		return tok.Reveal()
	}
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "what was given is none"},
		{"a password", "hunter2", "what was given is none"},
		{"the prefix alone", prefix, "not whole"},
		{"the end torn off", golden[:len(golden)-1], "not whole"},
		{"half", golden[:len(golden)/2], "not whole"},
		{"a letter changed", strings.Replace(golden, "Fubv", "Fubw", 1), "not whole"},
		{"two tokens", golden + "\n" + golden, "not whole"},
		{"other base64", prefix + base64.StdEncoding.EncodeToString(raw), "not whole"},
		{"another format", reseal(raw, func(b []byte) { b[0] = 1 }), "format 1"},
		{"role server", changed(func(t *Token) { t.Role = identity.Server }), "cannot join"},
		{"no role", reseal(raw, func(b []byte) { b[1] = 0 }), "malformed"},
		{"a wrong name", changed(func(t *Token) { t.Name = "Ann" }), "must be a-z"},
		{"no name", changed(func(t *Token) { t.Name = "" }), "empty name"},
		{"no server", changed(func(t *Token) { t.Servers = nil }), "malformed"},
		{"a wrong server", changed(func(t *Token) { t.Servers = []string{"x y"} }), "HOST:PORT"},
		{"no id", changed(func(t *Token) { t.ID = wire.TokenID{} }), "without an id"},
		{"no secret", changed(func(t *Token) { t.Secret = wire.Secret{} }), "or a secret"},
		{"a byte more", reseal(append(bytes.Clone(raw[:len(raw)-check]), 0, 0, 0, 0, 0), func([]byte) {}), "malformed"},
		{"100 kB", prefix + strings.Repeat("A", 100_000), "too long"},
	} {
		tok, err := Parse([]byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) || !reflect.DeepEqual(tok, Token{}) {
			t.Errorf("%s: got %v, %v; want an error with %q", tt.name, tok, err, tt.want)
		} else if strings.Contains(err.Error(), "oKCgoK") || strings.ContainsAny(err.Error(), "\n") {
			t.Errorf("%s: the error repeats the token: %v", tt.name, err)
		}
	}
	if _, err := Read(strings.NewReader(strings.Repeat("a", 1<<20))); err == nil {
		t.Error("a token of 1 MiB was read")
	}
}

// reseal changes the bytes of a token and gives it the check that fits them.
func reseal(raw []byte, change func([]byte)) string {
	b := bytes.Clone(raw[:len(raw)-check])
	change(b)
	return prefix + base64.RawURLEncoding.EncodeToString(append(b, sumOf(b)...))
}

func TestTokensDoNotPrint(t *testing.T) {
	tok := token()
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "token", tok, "in", struct{ T Token }{tok})
	for _, got := range []string{
		fmt.Sprint(tok), fmt.Sprintf("%v %+v %#v %s %x %q %d", tok, tok, tok, tok, tok, tok, tok), fmt.Sprintf("%+v", &tok), log.String(),
	} {
		for _, part := range []string{"a0a0", "160 160", "oKCg", `\xa0`, "0xa0"} {
			if strings.Contains(got, part) {
				t.Errorf("a secret was printed: %s", got)
			}
		}
		if !strings.Contains(got, "ann") {
			t.Errorf("%q does not say whose token it is", got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(golden))
	f.Add([]byte(prefix))
	f.Fuzz(func(t *testing.T, text []byte) {
		if tok, err := Parse(text); err == nil && tok.Reveal() != strings.NewReplacer("\r", "", "\n", "").Replace(string(bytes.TrimSpace(text))) {
			t.Errorf("%q was read, and is %q", text, tok.Reveal())
		}
	})
}

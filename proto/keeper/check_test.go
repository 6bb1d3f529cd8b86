package keeper

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
)

// TestCheckSaysWhatIsWrong: each thing in a line, and nothing is made.
func TestCheckSaysWhatIsWrong(t *testing.T) {
	dir, other := identitytest.New(t).Enrol(identity.Relay, "relay-1"), identitytest.New(t).Enrol(identity.Relay, "relay-1")
	in := func(name string) string { return filepath.Join(dir, name) }
	cfg := Config{Role: identity.Relay, Certificate: in("cert.pem"), Key: in("key.pem"), CA: in("ca.pem"), State: in("state")}
	wants := func(what string, now time.Time, want string) {
		t.Helper()
		mistakes := Check(cfg, func() time.Time { return now })
		if want == "" && len(mistakes) > 0 || want != "" && (len(mistakes) != 1 || !strings.Contains(mistakes[0].Error(), want) || strings.Contains(mistakes[0].Error(), "\n")) {
			t.Errorf("%s: %v, want one that has %q", what, mistakes, want)
		}
	}
	now := time.Now()
	wants("all is well", now, "")
	if _, err := os.Stat(cfg.State); err == nil {
		t.Error("the state folder was made")
	}
	wants("years later", now.AddDate(20, 0, 0), "use certificate "+cfg.Certificate+": it ended at 20")
	wants("years before", now.AddDate(-20, 0, 0), "use certificate "+cfg.Certificate+": it begins at 20")
	if err := os.Mkdir(cfg.State, 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(cfg.State, revocationsFile)
	for _, text := range []string{"", "nonsense", magic + "cut"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		wants("revocations "+text, now, name+": it is damaged after")
	}
	if err := os.WriteFile(name, []byte(magic), 0o600); err != nil {
		t.Fatal(err)
	}
	wants("no revocations", now, "")
	cfg.Key = filepath.Join(other, "key.pem")
	wants("another key", now, "the private key is not the one of this certificate")
}

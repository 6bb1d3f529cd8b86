package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/server/internal/config"
)

// F46: the server speaks of its own certificate and of its CAs before they end, and not
// each time that it looks.
func TestEndsAreLoggedBefore(t *testing.T) {
	lines := &logLines{arrived: make(chan struct{}, 1)}
	log, flush, err := command.Log{}.Logger(lines)
	if err != nil {
		t.Fatal(err)
	}
	ca := identitytest.New(t)
	o := &own{cfg: &config.Config{Certificate: "cert.pem"}, log: log, credentials: ca.Credentials(identity.Server, "server")}
	leaf := o.credentials.Leaf()
	begin := leaf.NotBefore
	if list := o.soon(begin); len(list) != 0 {
		t.Errorf("right away: %q", list)
	}
	step := leaf.NotAfter.Sub(begin) / 1000
	for now := begin; !now.After(leaf.NotAfter); now = now.Add(step) {
		o.warn(now)
	}
	if list := o.soon(leaf.NotAfter.Add(-time.Second)); len(list) == 0 || !strings.Contains(list[0], "the server's certificate at ") {
		t.Errorf("at the end: %q", list)
	}
	root := ca.Certificate
	for now := root.NotAfter.Add(-24 * time.Hour); !now.After(root.NotAfter); now = now.Add(10 * time.Minute) {
		o.warn(now)
	}
	flush()
	if n := len(lines.all("server's certificate ends soon")); n < 2 || n > 5 {
		t.Errorf("%d warnings of the server's certificate: %q", n, lines.all(""))
	}
	if n := len(lines.all("a trusted CA ends soon")); n < 2 || n > 5 {
		t.Errorf("%d warnings of the CA: %q", n, lines.all(""))
	}
}

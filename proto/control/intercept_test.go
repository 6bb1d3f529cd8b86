package control

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// What answers in a server's place is named, in the log once for as long as it does.
func TestWhoAnswersInAServersPlaceIsNamed(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "log in here") })
	for _, c := range []struct {
		name, words string
		start       func(*httptest.Server)
	}{
		{"TLS that is looked into", `with a certificate of "O=Acme Co"`, func(s *httptest.Server) {
			s.TLS = &tls.Config{NextProtos: []string{identity.ProtocolControl}}
			s.StartTLS()
		}},
		{"TLS", "knows nothing of Netport", (*httptest.Server).StartTLS},
		{"HTTP", `(it says "HTTP/")`, (*httptest.Server).Start},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(page)
			server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
			c.start(server)
			defer server.Close()
			address := server.Listener.Addr().String()
			warned := &warnings{}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			d := newRoles(t).dialer()
			d.Log = slog.New(warned)
			tries, failed := 0, ""
			d.Failed = func(at string, err error) {
				if failed = err.Error(); at != address {
					t.Errorf("failed at %s, not %s", at, address)
				}
				if tries++; tries == 3 {
					cancel()
				}
			}
			err := d.Keep(ctx, []string{address}, func(context.Context, *portalConn, wire.Welcome) error { return nil })
			if err != nil || tries != 3 {
				t.Fatalf("%d attempts, then %v", tries, err)
			}
			if !strings.Contains(failed, "in its place") || !strings.Contains(failed, c.words) || strings.Contains(failed, "\n") {
				t.Errorf("it is not named: %s", failed)
			}
			if len(warned.texts) != 1 {
				t.Errorf("warned %d times of it in 3 attempts: %q", len(warned.texts), warned.texts)
			}
		})
	}
}

// warnings are the records of a log that are more than information.
type warnings struct{ records }

func (*warnings) Enabled(_ context.Context, level slog.Level) bool { return level > slog.LevelInfo }

package fleet

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// T25, and the guide's quarter of an hour: 200 devices of one site join at once, each with a token of its own; of 50
// that come with one token, one wins.
func TestTwoHundredPortalsJoinAtOnce(t *testing.T) {
	l := topo.New(t)
	n := daemon.New(t, l.Public("server"))
	site := l.Router("site", topo.Symmetric, topo.IPv4Only()).Host("farm")
	tokens := strings.Split(strings.TrimSpace(n.Invite("portal", "till-%03d", "--count", "200", "--ttl", "1d")), "\n")
	if len(tokens) != 200 {
		t.Fatalf("%d tokens", len(tokens))
	}
	folder := site.DirOf(daemon.User)
	join := func(name, token string) error {
		cmd := site.Command(n.Program("portal"), "join", "--config", filepath.Join(folder, name, "config.toml")).As(daemon.User)
		cmd.Stdin, cmd.Limit = strings.NewReader(token), 3*await.Patience
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	}
	begin := time.Now()
	var all sync.WaitGroup
	for _, line := range tokens {
		name, token, _ := strings.Cut(line, " ")
		all.Go(func() {
			if err := join(name, token); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	t.Logf("200 portals joined at once within %v", time.Since(begin).Round(time.Millisecond))
	var portals []struct {
		Name string `json:"name"`
		Key  string `json:"key"`
	}
	if err := json.Unmarshal([]byte(n.Server.Run("portals", "--json")), &portals); err != nil {
		t.Fatal(err)
	}
	keys := make(map[string]bool)
	for _, p := range portals {
		keys[p.Key] = true
	}
	if len(portals) != 200 || len(keys) != 200 {
		t.Errorf("%d portals with %d keys are enrolled", len(portals), len(keys))
	}

	one := n.Invite("portal", "lucky")
	var won atomic.Int32
	for i := range 50 {
		all.Go(func() {
			if join(fmt.Sprint("thief-", i), one) == nil {
				won.Add(1)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d devices joined with one token", won.Load())
	}
	wantNowhere(t, one, n.Server.Dir(), folder)
	if log := n.Server.Log(); strings.Contains(log, secretOf(one)) {
		t.Error("the token is in the server's log")
	}
}

// secretOf is the part of a token that nobody else has: its last half.
func secretOf(token string) string {
	token = strings.TrimSpace(token)
	return token[len(token)/2:]
}

// wantNowhere wants that no file below the folders holds the secret of a token.
func wantNowhere(t *testing.T, token string, folders ...string) {
	t.Helper()
	files := 0
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			files++
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if strings.Contains(string(b), secretOf(token)) {
				t.Errorf("%s holds the token", path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 10 {
		t.Errorf("only %d files were looked at", files)
	}
}

package daemon

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/config"
)

// runConfig names the configuration of a server that this test binary is to run.
const runConfig = "NETPORT_TEST_RUN"

var full = flag.Bool("full", false, "run with the whole numbers of the threat list, which takes minutes more")

func TestMain(m *testing.M) {
	file := os.Getenv(runConfig)
	if file == "" {
		os.Exit(m.Run())
	}
	cfg, err := config.Load(file)
	if err == nil {
		err = Run(context.Background(), cfg, slog.New(slog.NewTextHandler(os.Stdout, nil)), nil)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// process is a server in a process of its own.
type process struct {
	*exec.Cmd
	log *logLines
}

func (r *rig) launch() *process {
	r.t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0]), log: &logLines{arrived: make(chan struct{}, 1)}}
	p.Env = append(os.Environ(), runConfig+"="+r.cfg.File)
	p.Stdout, p.Stderr = p.log, p.log
	if err := p.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { p.Process.Kill(); p.Wait() })
	p.log.wait(r.t, "msg=listening")
	return p
}

// T35: a revocation that was acknowledged is there after the server is killed, 1 ms later or
// less, and so are invitations that were used.
func TestRevocationSurvivesAKill(t *testing.T) {
	rounds := 20
	switch {
	case *full:
		rounds = 200
	case testing.Short():
		rounds = 3
	}
	r := newRig(t, "witness")
	r.shutdown()
	var epoch uint64
	for round := range rounds {
		name := fmt.Sprintf("p%d", round)
		p := r.launch()
		r.issue(name, false)
		key, cert := r.credentials[name].Key(), r.credentials[name].Certificate()
		result := r.revoke(admin.RevokeRequest{Role: identity.Portal, Name: name})
		time.AfterFunc(time.Duration(round%3)*500*time.Microsecond, func() { p.Process.Kill() })
		p.Wait()
		if result.Epoch <= epoch {
			t.Fatalf("round %d: epoch %d after %d", round, result.Epoch, epoch)
		}
		epoch = result.Epoch
		service, err := admin.Open(r.cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		_, enrolled := service.Registry.Portal(name)
		if got := service.Registry.Epoch(); got != epoch || enrolled || !service.Registry.IsRevoked(key) {
			t.Errorf("round %d: epoch %d, want %d; enrolled %t", round, got, epoch, enrolled)
		}
		service.Close()
		if round > 0 {
			continue
		}
		p = r.launch()
		if greeted(r, r.credentials[name], cert) {
			t.Error("a portal that was revoked before the kill is greeted after it")
		}
		p.Process.Kill()
		p.Wait()
	}
	r.start() // the rig ends it
}

// An invitation whose use was acknowledged is used after a kill, and nobody else has it.
func TestUsedInvitationSurvivesAKill(t *testing.T) {
	r := newRig(t)
	r.shutdown()
	for round := range 5 {
		p := r.launch()
		token := r.invite(admin.InviteRequest{Name: fmt.Sprintf("p%d", round)})
		owner := r.joiner(token)
		first := owner.mustJoin()
		p.Process.Kill()
		p.Wait()
		p = r.launch()
		if _, err := r.joiner(token).join(); err == nil {
			t.Errorf("round %d: another key has joined with a used token", round)
		}
		if again := owner.mustJoin(); again.Key() != first.Key() {
			t.Errorf("round %d: another key", round)
		}
		p.Process.Kill()
		p.Wait()
	}
	r.start()
}

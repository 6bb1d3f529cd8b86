package reload

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/netport/netport/proto/conffile"
)

type settings conffile.Values

func (s settings) Written() conffile.Values { return conffile.Values(s) }

// steps runs a Reloader over configurations, one a signal, and returns what it says of
// each.
func steps(t *testing.T, running settings, load func(step int) (settings, error), n int) (reports []*Report, applied []settings) {
	synctest.Test(t, func(t *testing.T) {
		signals, step := make(chan os.Signal), -1
		r := New(running, []string{"linger", "dial.allow"}, signals, func() (settings, error) {
			step++
			return load(step)
		}, slog.New(slog.DiscardHandler))
		if r.Last() != nil {
			t.Error("something was read before the first signal")
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx, func(s settings) { applied = append(applied, s) }) }()
		for range n {
			signals <- syscall.SIGHUP
			synctest.Wait()
			reports = append(reports, r.Last())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return reports, applied
}

func TestLiveKeysAreAppliedAndOthersNamed(t *testing.T) {
	running := settings{"linger": "2m", "state": "a", "dial.allow": []string(nil)}
	files := []settings{
		{"linger": "2m", "state": "a", "dial.allow": []string(nil)},
		{"linger": "1m", "state": "b", "dial.allow": []string{}},
		{"linger": "1m", "state": "b", "dial.allow": []string{}},
		{"linger": "2m", "state": "a", "dial.allow": []string{}},
	}
	reports, applied := steps(t, running, func(i int) (settings, error) { return files[i], nil }, len(files))
	for i, want := range []Report{
		{Applied: []string{}, Restart: []string{}},
		{Applied: []string{"dial.allow", "linger"}, Restart: []string{"state"}},
		{Applied: []string{}, Restart: []string{"state"}}, // it still does
		{Applied: []string{"linger"}, Restart: []string{}},
	} {
		want.At = reports[i].At
		if diff := cmp.Diff(want, *reports[i]); diff != "" {
			t.Errorf("step %d: %s", i, diff)
		}
	}
	if diff := cmp.Diff([]settings{files[1], files[3]}, applied); diff != "" {
		t.Errorf("applied: %s", diff)
	}
	if got := reports[1].Text(); got != "needs a restart to take: state" {
		t.Errorf("text %q", got)
	}
	if got := reports[3].Text(); got != "" {
		t.Errorf("text %q where all was taken", got)
	}
}

func TestInvalidConfigurationChangesNothing(t *testing.T) {
	reports, applied := steps(t, settings{"linger": "2m"}, func(i int) (settings, error) {
		if i == 0 {
			return nil, errors.New("c.toml:1:1: bad\n  the line")
		}
		return settings{"linger": "1m"}, nil
	}, 2)
	if text := reports[0].Text(); !strings.HasSuffix(text, "all stays as it was: c.toml:1:1: bad") || !strings.Contains(reports[0].Error, "the line") {
		t.Errorf("said %q of %q", text, reports[0].Error)
	}
	if len(applied) != 1 || reports[1].Error != "" || len(reports[1].Applied) != 1 {
		t.Errorf("after it was mended: %+v, applied %v", reports[1], applied)
	}
}

func TestNoReloaderReadsNothing(t *testing.T) {
	var r *Reloader[settings]
	if err := r.Run(t.Context(), nil); err != nil || r.Last() != nil || r.Last().Text() != "" {
		t.Error("a Reloader that is not there has read something")
	}
}

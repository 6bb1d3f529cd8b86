package policy_test

import (
	"regexp"
	"testing"
	"time"

	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/policy"
)

// The policy that init makes denies all, and its examples are what they say.
func TestExamplesOfInitAreAPolicy(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	made := config.Policy("example.org")
	p, err := policy.Parse("policy.toml", made, now)
	if err != nil || len(p.Forwards) > 0 {
		t.Fatalf("%d forwards, %v", len(p.Forwards), err)
	}
	examples := regexp.MustCompile(`(?m)^# (\[|[a-z_]+ *= )`).ReplaceAll(made, []byte("$1"))
	p, err = policy.Parse("policy.toml", examples, now)
	if err != nil {
		t.Fatalf("%v\nof\n%s", err, examples)
	}
	if len(p.Forwards) != 6 || p.Tests() != 5 || len(p.Warnings) > 0 {
		t.Errorf("%d forwards, %d tests, warnings %q", len(p.Forwards), p.Tests(), p.Warnings)
	}
	for _, err := range p.Test(now) {
		t.Error(err)
	}
}

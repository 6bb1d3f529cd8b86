package config

import (
	"testing"

	"github.com/netport/netport/proto/conffile/conffiletest"
	"github.com/netport/netport/proto/join"
)

// TestWhatJoinWritesIsRead: and what its comments say of defaults is so.
func TestWhatJoinWritesIsRead(t *testing.T) {
	const key = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
	for _, tpm := range []string{"", "/dev/tpm0"} {
		decided := []string{"servers", "policy_key"}
		if tpm != "" {
			decided = append(decided, "tpm")
		}
		text := join.Portal(join.Reach{Servers: []string{"a.example.org:443", "192.0.2.1"}}, key, tpm)
		conffiletest.Written(t, "join's configuration", text, func() any { raw := defaults(); return &raw }, decided...)
		if c, _, err := load(t, string(text)); err != nil || len(c.Servers) != 2 {
			t.Errorf("%+v, %v", c, err)
		}
	}
}

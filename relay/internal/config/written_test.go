package config

import (
	"testing"

	"github.com/netport/netport/proto/conffile/conffiletest"
	"github.com/netport/netport/proto/join"
)

// TestWhatJoinWritesIsRead: and what its comments say of defaults is so.
func TestWhatJoinWritesIsRead(t *testing.T) {
	text := join.Relay(join.Reach{Servers: []string{"a.example.org:443", "192.0.2.1"}}, "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
	conffiletest.Written(t, "join's configuration", text, func() any { raw := defaults(); return &raw }, "servers", "policy_key")
	if c, err := load(t, string(text)); err != nil || len(c.Servers) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
}

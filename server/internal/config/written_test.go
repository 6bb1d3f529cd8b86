package config

import (
	"testing"

	"github.com/netport/netport/proto/conffile/conffiletest"
)

// TestWhatInitWritesIsRead: of a server with its keys, and of one in strict mode.
func TestWhatInitWritesIsRead(t *testing.T) {
	for _, keys := range [][2]string{{"policy.key", "ca.key"}, {"ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", ""}} {
		text := Server("example.org", "a.example.org:443", "[::]:443", keys[0], keys[1])
		conffiletest.Written(t, "init's configuration", text, func() any { r := defaults(); return &r }, "domain", "address", "listen", "policy_key", "ca_key")
		if c, err := load(t, string(text)); err != nil || c.Domain != "example.org" {
			t.Errorf("%+v, %v", c, err)
		}
	}
}

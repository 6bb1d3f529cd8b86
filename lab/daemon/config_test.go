package daemon

import (
	"os"
	"path/filepath"
	"testing"
)

func TestConfigurationIsChangedKeyByKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte("log_level = \"info\"\n[listen]\nallow = [\"tcp://127.0.0.1:*\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := EditConfig(file, Set("log_level", "debug"), Set("dial.allow", []string{"tcp://10.0.0.5:80"}))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := `log_level = 'debug'

[dial]
allow = ['tcp://10.0.0.5:80']

[listen]
allow = ['tcp://127.0.0.1:*']
`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if err := EditConfig(file, Set("log_level.x", 1)); err == nil {
		t.Error("a key inside of a value was set")
	}
}

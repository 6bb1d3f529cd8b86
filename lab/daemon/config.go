package daemon

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Option changes a daemon before it is started first.
type Option struct {
	key    string
	value  any
	kernel bool   // the daemon needs what InKernel gives
	user   string // whom the daemon runs as; empty: User
	args   []string
}

// JoinArgs gives a portal that joins these arguments for that, for instance JoinArgs("--proxy", "http://192.0.2.1:3128").
func JoinArgs(args ...string) Option { return Option{args: args} }

// Set sets a key of the daemon's config.toml, for instance Set("dial.allow", []string{"10.0.0.5:80"}).
func Set(key string, value any) Option { return Option{key: key, value: value} }

// configure changes the daemon's config.toml, which takes effect when it is started next.
func (d *Daemon) configure(options []Option) {
	d.t.Helper()
	options = slices.DeleteFunc(slices.Clone(options), func(o Option) bool { return o.key == "" })
	if len(options) == 0 {
		return
	}
	if err := EditConfig(d.config(), options...); err != nil {
		d.t.Fatalf("%s: change the configuration: %v", d.name, err)
	}
}

// Configure sets a key of the daemon's config.toml. It takes effect when the daemon is started next.
func (d *Daemon) Configure(key string, value any) {
	d.t.Helper()
	d.configure([]Option{Set(key, value)})
}

// EditConfig changes a config.toml, whose owner and mode stay. Its comments are lost.
func EditConfig(file string, options ...Option) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	config := make(map[string]any)
	if err := toml.Unmarshal(old, &config); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	for _, o := range options {
		if err := set(config, o.key, o.value); err != nil {
			return err
		}
	}
	changed, err := toml.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(file, changed, 0o600)
}

// set puts value at a dotted key and makes the tables on the way.
func set(table map[string]any, key string, value any) error {
	name, rest, nested := strings.Cut(key, ".")
	if !nested {
		table[name] = value
		return nil
	}
	switch inner := table[name].(type) {
	case map[string]any:
		return set(inner, rest, value)
	case nil:
		made := make(map[string]any)
		table[name] = made
		return set(made, rest, value)
	default:
		return fmt.Errorf("%s is no table", name)
	}
}

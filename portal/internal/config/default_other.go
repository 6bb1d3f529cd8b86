//go:build !darwin && !windows

package config

// DefaultFile is where the configuration is looked for.
const DefaultFile = "/etc/netport/portal/config.toml"

package config

// DefaultFile is where the configuration is looked for.
const DefaultFile = "/Library/Application Support/Netport/Portal/config.toml"

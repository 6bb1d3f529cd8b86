package proxy

import "os"

// Load is New with the environment of this process.
func Load(setting, passwordFile string) (*Settings, error) {
	return New(setting, passwordFile, os.Getenv)
}

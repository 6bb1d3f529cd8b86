//go:build !linux

package privilege

// Keep does nothing: there are no capabilities here.
func Keep(Set) error { return nil }

//go:build !linux

package network

// Machine returns "": two portals on one machine reach each other by the addresses of its
// interfaces alone.
func Machine() string { return "" }

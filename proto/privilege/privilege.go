// Package privilege gives back what a daemon does not need once it has started. It may
// be handed capabilities by systemd, or all of them as root; what a hole in it could be
// used for is decided here. Only Linux has what it is about; elsewhere it does nothing.
package privilege

// Set is a set of capabilities(7).
type Set uint64

// Of returns the set of the capabilities of these numbers (unix.CAP_BPF and so
// on).
func Of(capabilities ...int) Set {
	var s Set
	for _, c := range capabilities {
		s |= 1 << c
	}
	return s
}

// Listen is what ports below 1024 need: CAP_NET_BIND_SERVICE.
const Listen Set = 1 << 10

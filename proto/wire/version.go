package wire

import "fmt"

// VersionText says that two sides speak different versions of a protocol, both numbers, and
// which of the two is to be upgraded: the older one.
func VersionText(protocol, one string, ones uint16, other string, others uint16) string {
	older := one
	if others < ones {
		older = other
	}
	return fmt.Sprintf("%s speaks version %d of the %s protocol, %s version %d: upgrade %s", one, ones, protocol, other, others, older)
}

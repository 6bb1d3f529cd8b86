//go:build !unix

package identity

import (
	"fmt"
	"os"
)

// CheckSecret refuses what is not a regular file. Who may read it is the
// system's access control list, which has no mode to check.
func CheckSecret(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("read key %s: %w", file, reason(err))
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("read key %s: it is not a regular file", file)
	}
	return nil
}

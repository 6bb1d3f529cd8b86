//go:build !linux && !windows

package command

import "io"

// isJournal: there is no journal on other systems.
func isJournal(io.Writer, string) bool { return false }

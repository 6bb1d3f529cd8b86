//go:build !windows && !darwin

package cli

import "github.com/spf13/cobra"

// services is empty: there is systemd, and packages bring the portal's units.
func services() []*cobra.Command { return nil }

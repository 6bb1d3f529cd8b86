//go:build windows || darwin

package cli

import (
	"github.com/spf13/cobra"

	"github.com/netport/netport/portal/internal/service"
)

// services are the commands that have the system run the portal.
func services() []*cobra.Command {
	manager, words := service.System()
	return []*cobra.Command{service.Command(manager, words, service.Find)}
}

// Package service has a portal run as a service of its system: begun with it, and again
// when it has failed. It knows the service control manager of Windows and launchd of
// macOS; on Linux the units for systemd that packages bring are all that is needed.
package service

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/netport/netport/portal/internal/config"
	"github.com/netport/netport/proto/command"
)

// Job is what the service runs.
type Job struct {
	Program string        // absolute
	File    string        // the configuration's, absolute
	Config  config.Config // what is in it
}

// State is how the service is.
type State struct {
	Installed bool   `json:"installed"`
	Running   bool   `json:"running"`
	Text      string `json:"text"` // for people
}

// Manager is a system's manager of services, which knows the portal's by its name.
type Manager interface {
	// Install has the system run the job from now on, and returns what its owner has to
	// know, a line each.
	Install(Job) ([]string, error)
	// Remove stops the service and forgets it. Its files stay.
	Remove() error
	// Status returns how the service is; that it is not installed is no error.
	Status() (State, error)
}

// Words are how a system is spoken of in the help.
type Words struct {
	System  string // what has the services: "Windows"
	Account string // whom the portal runs as, and where its log is
	Reload  string // the command that has the configuration read anew
}

// Command returns the command line for a manager. job finds out what is to run where
// --config names a file.
func Command(m Manager, w Words, job func(file string) (Job, error)) *cobra.Command {
	c := command.Group(&cobra.Command{
		Use:   "service",
		Short: "Have " + w.System + " run the portal",
		Long: "Have " + w.System + ` run the portal: it begins with the system, and again when it has failed.

` + w.Account + `

` + w.Reload + `
has a running portal read its configuration anew (see "run").`,
	})
	install := &cobra.Command{
		Use:     "install",
		Short:   "Install the service and start it",
		Long:    "Install the service and start it. The configuration must be there and right (\"join\" makes\none); the program is run from where it is now.",
		Example: "  netport-portal service install",
		Args:    command.Args(),
	}
	file := install.Flags().String("config", config.DefaultFile, "the portal's configuration `FILE`")
	install.RunE = func(c *cobra.Command, _ []string) error {
		j, err := job(*file)
		if err != nil {
			return fmt.Errorf("install the service: %w", err)
		}
		notes, err := m.Install(j)
		if err != nil {
			return fmt.Errorf("install the service: %w", err)
		}
		fmt.Fprintf(c.OutOrStdout(), "The portal runs as a service, and starts with the system.\n")
		for _, n := range notes {
			fmt.Fprintln(c.OutOrStdout(), n)
		}
		return nil
	}
	remove := &cobra.Command{
		Use:     "remove",
		Short:   "Stop the service and remove it",
		Long:    "Stop the service and remove it. Configuration, keys and state stay.",
		Example: "  netport-portal service remove",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := m.Remove(); err != nil {
				return fmt.Errorf("remove the service: %w", err)
			}
			return nil
		},
	}
	status := &cobra.Command{
		Use:     "status",
		Short:   "Say whether the service is installed and runs",
		Long:    "Say whether the service is installed and runs. What the portal does is in \"netport-portal status\".",
		Example: "  netport-portal service status --json",
		Args:    command.Args(),
	}
	asJSON := status.Flags().Bool("json", false, "print JSON")
	status.RunE = func(c *cobra.Command, _ []string) error {
		s, err := m.Status()
		if err != nil {
			return fmt.Errorf("ask for the service: %w", err)
		}
		if *asJSON {
			return command.JSON(c.OutOrStdout(), s)
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), command.Clean(s.Text))
		return err
	}
	c.AddCommand(install, remove, status)
	return c
}

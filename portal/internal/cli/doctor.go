package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/netport/netport/portal/internal/doctor"
	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/folder"
)

func doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what is wrong with this portal and its network",
		Long: `Find out what is wrong with this portal and its network: configuration and files,
the clock, the names and addresses of the servers, the proxy, TLS on the way to them, the
relays over TCP and UDP, the largest packet, the NAT, whether the router maps ports. Each
line is ok, warning or failed, and says what to do. What a firewall is to let out stands
at the end, for its owner.

It works with the daemon running, which it asks, and without, and takes half a minute
at most. No rights are needed but to read the portal's files. The exit status is 1 if
something has failed.

The relays it tries are those of which the portal holds a ticket, or of which the server
tells. A relay is silent to whoever has no ticket, so UDP cannot be tried without. Whether
the ports of single sessions are open, only a tunnel shows: a daemon that has none is
asked to open one.`,
		Example: "  netport-portal doctor\n  netport-portal doctor --json",
		Args:    command.Args(),
	}
	var view command.View
	view.OnceFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		file, err := c.Flags().GetString("config")
		if err != nil {
			return err
		}
		// Root would find fault with files that are right for the daemon's user.
		root, err := folder.AsOwner(filepath.Dir(file))
		if err != nil {
			return err
		}
		defer root()
		var r doctor.Report
		err = command.Show(c, view, func(ctx context.Context) (doctor.Report, error) {
			r = doctor.Judge(doctor.Examine(ctx, file, doctor.Machine()))
			r.Lines = append(r.Lines, doctor.System()...)
			return r, nil
		}, printReport)
		if err == nil && r.Failed() {
			err = command.ErrShown
		}
		return err
	}
	return c
}

// printReport prints what was found, and then what to have opened.
func printReport(w *command.Page, r doctor.Report) error {
	for _, l := range r.Lines {
		w.Line(fmt.Sprintf("%-8s ", l.State), l.What+": "+l.Text)
		if l.Do != "" {
			w.Line("         -> ", l.Do)
		}
	}
	if len(r.Open) == 0 {
		_, err := fmt.Fprintln(w, "\nNothing was found that a firewall would have to let out.")
		return err
	}
	fmt.Fprintln(w, "\nFor the firewall's owner: nothing has to be let in. Please let out")
	rows := make([][]string, 0, len(r.Open))
	for _, o := range r.Open {
		rows = append(rows, []string{o.Protocol, o.Host, o.Ports, string(o.Need), o.Why})
	}
	return w.Table(command.Columns{"PROTOCOL", "HOST", "PORT", "NEED", "WHY"}, rows)
}

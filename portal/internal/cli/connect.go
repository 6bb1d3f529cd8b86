package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/spf13/cobra"

	"github.com/netport/netport/portal/internal/daemon"
	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
)

func connect() *cobra.Command {
	return &cobra.Command{
		Use:   "connect PORTAL ENDPOINT",
		Short: "Join standard input and output with a target behind another portal",
		Long: `Join standard input and output with a target behind another portal. The policy
must have a forward from this portal's "stdio:" to just that target.`,
		Example: `  netport-portal connect factory-1 tcp://10.0.0.5:22
  ssh -o ProxyCommand="netport-portal connect factory-1 tcp://10.0.0.5:22" user@plc`,
		Args: command.Args("PORTAL", "ENDPOINT"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := identity.CheckName(args[0]); err != nil {
				return command.Usagef("PORTAL: %w", err)
			}
			target, err := endpoint.Parse(args[1])
			if err == nil {
				err = target.CheckTarget()
			}
			if err != nil {
				return command.Usagef("ENDPOINT: %w", err)
			}
			conf, err := load(c)
			if err != nil {
				return err
			}
			token := rand.Text()
			conn, err := local.Stream(c.Context(), conf.Socket, daemon.CallConnect, daemon.ConnectArgs{Portal: args[0], Target: target.String(), Token: token})
			if err != nil {
				return plain(err)
			}
			if err := join(c.Context(), conn, c.InOrStdin(), c.OutOrStdout(), func(ctx context.Context) error {
				return local.Call(ctx, conf.Socket, daemon.CallOutcome, daemon.OutcomeArgs{Token: token}, nil)
			}); err != nil {
				return fmt.Errorf("connect to %s at %s: %w", target, args[0], plain(err))
			}
			return nil
		},
	}
}

// join copies in to conn and conn to out, each direction to its own end, until
// outcome returns: only the daemon knows whether the end of what came from
// conn was a clean one.
func join(ctx context.Context, conn *net.UnixConn, in io.Reader, out io.Writer, outcome func(context.Context) error) error {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	// The copy of in may wait for a terminal for ever; it ends with the process.
	go func() {
		if _, err := io.Copy(conn, in); err == nil {
			conn.CloseWrite()
		}
	}()
	var copying sync.WaitGroup
	written := &sink{w: out}
	copying.Go(func() {
		// What ended the reading, the outcome knows better.
		io.Copy(written, conn)
		if written.err != nil {
			conn.Close()
			return
		}
		if c, ok := out.(io.Closer); ok { // half-closed: what reads us sees the end
			c.Close()
		}
	})
	err := outcome(ctx) // the daemon has closed its end of conn then
	copying.Wait()
	conn.Close()
	switch {
	case written.err != nil:
		return fmt.Errorf("write output: %w", written.err)
	case ctx.Err() != nil:
		return errors.New("interrupted")
	}
	return err
}

// sink keeps the error of a writer.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(b []byte) (n int, err error) {
	n, s.err = s.w.Write(b)
	return n, s.err
}

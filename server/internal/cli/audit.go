package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/config"
)

func newAudit() *cobra.Command {
	var at target
	var view command.View
	var count int
	var since time.Duration
	c := &cobra.Command{
		Use:     "audit",
		Short:   "Show the last decisions: who asked for what, and the answer",
		Example: "  netport-server audit --last 100 --since 24h",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			if count < 1 {
				return command.Usagef("--last is 1 or more")
			}
			if since < 0 {
				return command.Usagef("--since is a time that has passed, as in 24h")
			}
			return command.Show(c, view, func(context.Context) ([]audit.Record, error) {
				r := admin.TailRequest{Count: count}
				if since > 0 {
					r.Since = time.Now().Add(-since)
				}
				return tail(c, at, r)
			}, printAudit)
		},
	}
	c.AddCommand(newAuditVerify())
	at.flags(c)
	view.Flags(c)
	c.Flags().IntVarP(&count, "last", "n", 20, "how many")
	c.Flags().DurationVar(&since, "since", 0, "only those not older than this, as in 24h")
	return c
}

func printAudit(w *command.Page, list []audit.Record) error {
	var rows [][]string
	for _, r := range list {
		rows = append(rows, []string{since(r.Time), r.Event, r.Answer, dash(r.Portal), dash(r.Peer), dash(r.Forward), dash(r.Relay), dash(detail(r))})
	}
	return w.Table(command.Columns{"TIME", "EVENT", "ANSWER", "PORTAL", "+PEER", "FORWARD", "+RELAY", "DETAIL"}, rows)
}

func newAuditVerify() *cobra.Command {
	var at target
	var head string
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify",
		Short: "Check that no audit line was altered, removed or added",
		Long: `Check that no audit line was altered, removed or added: each line names the hash of
the line before it. Lines cut off at the end are noticed only with --head: keep the
head that this command prints on another machine, and name it the next time.

A server that finds the chain broken when it starts says so, in its log and its status,
and begins it anew. This command fails for that, too, until it is given a head that was
noted after it.`,
		Example: "  netport-server audit verify\n  netport-server audit verify --head 3f2c...",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			if head != "" && !audit.IsHead(head) {
				return command.Usagef("--head is the %d hexadecimal digits that \"audit verify\" printed", audit.HeadLen)
			}
			v, folder, err := verify(c, at, head)
			if err != nil {
				return err
			}
			if asJSON {
				err = command.JSON(c.OutOrStdout(), v)
			} else {
				_, err = io.WriteString(c.OutOrStdout(), verdict(v))
			}
			switch {
			case err != nil:
				return err
			case v.Broken != "":
				return fmt.Errorf("verify audit in %s: the chain breaks at %s", folder, v.Broken)
			case len(v.Anew) > 0 && !v.Settled:
				return fmt.Errorf("verify audit in %s: the chain was broken at %s; a server has begun it anew since: whoever has looked into that names the head of now with --head from then on", folder, v.Anew[len(v.Anew)-1])
			case head != "" && !v.Noted:
				return fmt.Errorf("verify audit in %s: no line has the head %s: lines were cut off since it was noted, or its file was put out", folder, head)
			}
			return nil
		},
	}
	at.flags(c)
	jsonFlag(c, &asJSON)
	c.Flags().StringVar(&head, "head", "", "a `HASH` that was noted before: what led to it must still be there")
	return c
}

// verdict says what was found, up to where the chain is whole.
func verdict(v audit.Verdict) string {
	if v.Records == 0 {
		return "records  none\n"
	}
	begin := "begins the log"
	if !v.Begins {
		begin = "what came before it was put out"
	}
	text := fmt.Sprintf("records  %d\nfirst    %s, %s\nlast     %s\n", v.Records, v.First.Format(time.RFC3339), begin, v.Last.Format(time.RFC3339))
	if v.Lost > 0 {
		text += fmt.Sprintf("lost     %d records could not be written when they came\n", v.Lost)
	}
	if v.Torn > 0 {
		text += fmt.Sprintf("torn     %d lines were cut short by a crash\n", v.Torn)
	}
	for _, at := range v.Anew {
		text += fmt.Sprintf("broken   at %s; begun anew after it\n", at)
	}
	if v.Open {
		text += "open     the last line has no end: it is being written, or was cut short by a crash\n"
	}
	return text + fmt.Sprintf("head     %s\n", v.Head)
}

// tail reads the files of a server on this machine, whether it runs or not.
func tail(c *cobra.Command, at target, r admin.TailRequest) (list []audit.Record, err error) {
	if at.isRemote() {
		err = at.askState(c, admin.CommandAudit, r, &list)
		return list, err
	}
	cfg, err := config.Load(at.config)
	if err != nil {
		return nil, err
	}
	return audit.Tail(cfg.State, r.Count, r.Since)
}

// verify checks the files of a server on this machine, whether it runs or not. folder
// names where they are.
func verify(c *cobra.Command, at target, head string) (v audit.Verdict, folder string, err error) {
	if at.isRemote() {
		err = at.askState(c, admin.CommandVerify, admin.VerifyRequest{Head: head}, &v)
		return v, "the server's state", err
	}
	cfg, err := config.Load(at.config)
	if err != nil {
		return v, "", err
	}
	v, err = audit.Verify(cfg.State, head)
	return v, cfg.State, err
}

// detail says what the columns do not, and at last who gave the command.
func detail(r audit.Record) string {
	text := happened(r)
	switch {
	case r.By != "" && text != "":
		return text + "; by " + r.By
	case r.By != "":
		return "by " + r.By
	}
	return text
}

func happened(r audit.Record) string {
	switch {
	case r.Count > 0:
		return strconv.FormatUint(r.Count, 10) + " records"
	case r.Event == "session" && r.Answer == audit.Ended:
		return fmt.Sprintf("%s, %d bytes forth, %d back", r.Reason, r.Forth, r.Back)
	case r.Reason != "" && r.From != "":
		return r.Reason + ", from " + r.From
	case r.Reason != "":
		return r.Reason
	}
	return r.Detail
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

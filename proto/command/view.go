package command

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// watchEvery is the pause between two looks with --watch.
const watchEvery = 2 * time.Second

// View is how somebody wants to see something: --json, --wide, --watch.
type View struct{ json, wide, watch bool }

// Flags adds the flags to a command that shows what is so.
func (v *View) Flags(c *cobra.Command) {
	v.OnceFlags(c)
	c.Flags().BoolVar(&v.watch, "watch", false, "show it again every 2 seconds, until interrupted")
}

// OnceFlags adds the flags to a command that examines or changes something, which it does
// once.
func (v *View) OnceFlags(c *cobra.Command) {
	c.Flags().BoolVar(&v.json, "json", false, "print JSON")
	c.Flags().BoolVar(&v.wide, "wide", false, "show all columns, and lines as long as they are")
}

// Show prints what ask returns, as the view says. With --watch that goes on until the
// command is interrupted: a terminal shows the latest alone, anything else gets one after
// the other, each after a line with the time (not in JSON). What cannot be asked for then
// is said in its place, but for the first time.
func Show[T any](c *cobra.Command, v View, ask func(context.Context) (T, error), print func(*Page, T) error) error {
	out := c.OutOrStdout()
	return show(c.Context(), out, terminal(out), v, ask, print)
}

func show[T any](ctx context.Context, out io.Writer, screen bool, v View, ask func(context.Context) (T, error), print func(*Page, T) error) error {
	for first := true; ; first = false {
		var text bytes.Buffer // written at once: nothing flickers
		result, err := ask(ctx)
		switch {
		case ctx.Err() != nil && !first:
			return nil
		case err != nil && first:
			return err
		case err != nil:
			fmt.Fprintln(&text, Clean(err.Error()))
		case v.json:
			err = JSON(&text, result)
		default:
			err = print(&Page{Writer: &text, Wide: v.wide, colour: screen && coloured()}, result)
		}
		if err != nil && text.Len() == 0 {
			return err
		}
		if v.watch {
			fmt.Fprint(out, before(screen, v.json, first))
		}
		if _, err := out.Write(text.Bytes()); err != nil || !v.watch {
			return err
		}
		select {
		case <-time.After(watchEvery):
		case <-ctx.Done():
			return nil
		}
	}
}

// before is what stands before each look of a watch.
func before(screen, json, first bool) string {
	now := time.Now().Format(time.DateTime)
	switch {
	case screen:
		return "\x1b[H\x1b[2J\x1b[3J" + now + "\n"
	case json:
		return ""
	case first:
		return now + "\n"
	}
	return "\n" + now + "\n"
}

// JSON reports whether JSON is wanted.
func (v View) JSON() bool { return v.json }

// Watches reports whether it is to be shown again and again.
func (v View) Watches() bool { return v.watch }

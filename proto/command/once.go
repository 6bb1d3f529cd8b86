package command

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// once is the value of a flag that may stand on a command line once: of two values, one would be lost without a word.
type once struct {
	pflag.Value
	given bool
}

func (o *once) Set(s string) error {
	if o.given {
		return errors.New("it is there twice, and has one value")
	}
	o.given = true
	return o.Value.Set(s)
}

// flagsOnce lets each flag of a program, but for lists, stand once on its command line. What runs then may set it anew.
func flagsOnce(root *cobra.Command) {
	limitFlags(root)
	root.PersistentPreRun = func(c *cobra.Command, _ []string) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if limited, ok := f.Value.(*once); ok {
				f.Value = limited.Value
			}
		})
	}
}

func limitFlags(c *cobra.Command) {
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if _, isList := f.Value.(pflag.SliceValue); !isList {
			f.Value = &once{Value: f.Value}
		}
	})
	for _, below := range c.Commands() {
		limitFlags(below)
	}
}

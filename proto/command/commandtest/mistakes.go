package commandtest

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/netport/netport/proto/command"
)

// Mistakes says how a program may be used wrongly.
type Mistakes struct {
	Program func() *cobra.Command
	// Ports are command lines that take a port where %s stands.
	Ports []string
}

// token is in the form of a join token.
var token = "netport-join-" + strings.Repeat("AgEA-b_1", 20)

// Check uses every command wrongly, in all the ways that there are without knowing what it is for: it must end with exit
// code 2 and one line on standard error that begins with the program's name, and must print nothing else and do nothing.
func (m Mistakes) Check(t *testing.T) {
	t.Helper()
	root := m.Program()
	for _, c := range append(below(root), root) {
		path := strings.Fields(c.CommandPath())[1:]
		m.refused(t, "unknown flag: --no-such-flag", path, "--no-such-flag")
		m.refused(t, "unknown shorthand flag", path, "-Q")
		m.refused(t, "", path, strings.Split("9 8 7 6 5 4 3 2 1", " ")...)
		for _, args := range [][]string{{token}, {"--token", token}, {"--config=" + token}, {"a", "b", "x" + token}} {
			if said := m.refused(t, "this one is spoilt", path, args...); strings.Contains(said, token[:30]) {
				t.Errorf("%s: the token is repeated: %s", c.CommandPath(), said)
			}
		}
		c.Flags().VisitAll(func(f *pflag.Flag) { m.checkFlag(t, path, f) })
	}
	for _, line := range m.Ports {
		for _, port := range []string{"65536", "-1", "0", "80a", "", " 80", "80 ", "+80", "4294967376"} {
			var args []string
			for _, arg := range strings.Fields(line) {
				args = append(args, strings.ReplaceAll(arg, "%s", port))
			}
			m.refused(t, "is not a number from 1 to 65535", args)
		}
	}
}

// checkFlag leaves out a flag's value, and gives a flag that is no list twice.
func (m Mistakes) checkFlag(t *testing.T, path []string, f *pflag.Flag) {
	t.Helper()
	name := "--" + f.Name
	if f.NoOptDefVal == "" {
		m.refused(t, "flag needs an argument: "+name, path, name)
	}
	if _, isList := f.Value.(pflag.SliceValue); isList || f.Hidden {
		return
	}
	value := f.DefValue
	if f.Value.Type() == "string" {
		value = "a"
	}
	m.refused(t, "it is there twice", path, name+"="+value, name+"="+value)
}

// refused runs a command line that must be refused as a wrong one, with a text in the line that says so, which it returns.
func (m Mistakes) refused(t *testing.T, want string, path []string, args ...string) string {
	t.Helper()
	args = append(path[:len(path):len(path)], args...)
	var out, said bytes.Buffer
	root := m.Program()
	code := command.Run(context.Background(), root, args, strings.NewReader(""), &out, &said)
	line := said.String()
	if code != 2 || out.Len() > 0 || !strings.HasPrefix(line, root.Name()+": ") || strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") || !strings.Contains(line, want) {
		t.Errorf("%s %q: exit %d, want 2 and %q\nstdout: %s\nstderr: %s", root.Name(), args, code, want, &out, line)
	}
	return line
}

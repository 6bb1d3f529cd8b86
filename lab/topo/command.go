package topo

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// Patience bounds whatever the lab waits for, on a slow machine.
const Patience = 60 * time.Second

// Cmd is an exec.Cmd that runs on a node: in its network, with its view of files. Set Env, Dir and Stdin as on an
// exec.Cmd. What still runs when the test ends is killed.
type Cmd struct {
	*exec.Cmd
	// Limit is for how long the program may run where its end is waited for; 0: for Patience.
	Limit time.Duration

	node *Node // nil: it runs on this machine itself
}

// Command returns a program to be run on the node, with the lab's environment.
func (n *Node) Command(name string, args ...string) *Cmd {
	cmd := Here(name, args...)
	cmd.node = n
	return cmd
}

// Here returns a program to be run on this machine itself, beside all namespaces. It is not killed with the test, unless
// its SysProcAttr says so.
func Here(name string, args ...string) *Cmd {
	cmd := &Cmd{Cmd: exec.Command(name, args...)}
	cmd.WaitDelay = time.Second // a daemon's child may keep the output open
	return cmd
}

// As makes the program run as the named user, with that user's groups and no capability. It returns the command.
func (c *Cmd) As(name string) *Cmd {
	c.node.t.Helper()
	uid, gid := c.node.lookupUser(name)
	if c.SysProcAttr == nil {
		c.SysProcAttr = new(syscall.SysProcAttr)
	}
	c.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	return c
}

// With gives the program capabilities (unix.CAP_NET_ADMIN and so on), whoever it runs as. It returns the command.
func (c *Cmd) With(capabilities ...uintptr) *Cmd {
	if c.SysProcAttr == nil {
		c.SysProcAttr = new(syscall.SysProcAttr)
	}
	c.SysProcAttr.AmbientCaps = capabilities
	return c
}

// Start starts the program and does not wait for it.
func (c *Cmd) Start() error {
	if c.node == nil {
		return c.Cmd.Start()
	}
	return c.node.space.Start(c.Cmd)
}

// End waits until the program, which was started, has ended. One that runs for longer than it may from now on is killed,
// and the error says so.
func (c *Cmd) End() error {
	limit := cmp.Or(c.Limit, Patience)
	late := time.AfterFunc(limit, func() { c.Process.Kill() })
	err := c.Wait()
	if !late.Stop() && err != nil {
		return fmt.Errorf("not over within %v, and killed: %w", limit, err)
	}
	return err
}

// Run runs the program until it ends, as End waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.End()
}

// Output runs the program and returns what it wrote on standard output. As with an exec.Cmd, an *exec.ExitError holds
// what it wrote on standard error, if that was not captured otherwise.
func (c *Cmd) Output() ([]byte, error) {
	var stdout, stderr bytes.Buffer
	c.Stdout = &stdout
	if c.Stderr == nil {
		c.Stderr = &stderr
	}
	err := c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		exit.Stderr = stderr.Bytes()
	}
	return stdout.Bytes(), err
}

// CombinedOutput runs the program and returns what it wrote on standard output and standard error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// Run runs a program on the node and returns what it wrote on standard output. It ends the test if the program
// fails.
func (n *Node) Run(name string, args ...string) string {
	n.t.Helper()
	out, err := n.Command(name, args...).Output()
	if err != nil {
		var stderr []byte
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			stderr = exit.Stderr
		}
		n.t.Fatalf("%s: %s %q: %v\n%s%s", n.name, name, args, err, out, stderr)
	}
	return string(out)
}

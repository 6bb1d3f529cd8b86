package topo

import (
	"bytes"
	"errors"
	"os/exec"
	"syscall"
	"time"
)

// Cmd is an exec.Cmd that runs on a node: in its network, with its view of files. Set Env, Dir and Stdin as on an
// exec.Cmd. What still runs when the test ends is killed.
type Cmd struct {
	*exec.Cmd
	node *Node
}

// Command returns a program to be run on the node, with the lab's environment.
func (n *Node) Command(name string, args ...string) *Cmd {
	cmd := &Cmd{Cmd: exec.Command(name, args...), node: n}
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
func (c *Cmd) Start() error { return c.node.space.Start(c.Cmd) }

// Run runs the program until it ends.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
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

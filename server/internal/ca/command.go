package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/netport/netport/proto/identity"
)

const (
	// commandTime is how long a ca_command may take.
	commandTime = 30 * time.Second
	// commandOutput is how much of what it writes is read, in bytes.
	commandOutput = 256 << 10
	// commandsAtOnce is how many of them run at once.
	commandsAtOnce = 4
)

// Command is an Issuer that hands requests to a program of the operator's: the
// request (PKCS #10, PEM) on its standard input, the chain (PEM, leaf first) from its
// standard output, with exit status 0. What is to be in the certificate stands in its
// environment: NETPORT_URI, NETPORT_ROLE, NETPORT_NAME, NETPORT_LIFE (as "720h0m0s").
// Its answer is believed in nothing: it is checked like the work of a stranger.
type Command struct {
	domain  string
	args    []string
	trusted func() []*x509.Certificate
	now     func() time.Time
	turns   chan struct{}
}

// NewCommand returns the issuer of a domain. trusted returns the authorities that count.
func NewCommand(domain string, args []string, trusted func() []*x509.Certificate, now func() time.Time) *Command {
	return &Command{domain: domain, args: args, trusted: trusted, now: now, turns: make(chan struct{}, commandsAtOnce)}
}

// Issue implements Issuer.
func (c *Command) Issue(ctx context.Context, o Order) ([]*x509.Certificate, error) {
	id, err := identity.New(c.domain, o.Role, o.Name)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	select {
	case c.turns <- struct{}{}:
		defer func() { <-c.turns }()
	case <-ctx.Done():
		return nil, fmt.Errorf("issue a certificate for %s: ca_command %s is busy with others", id, c.args[0])
	}
	out, err := c.run(ctx, id, o)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate for %s: ca_command %s: %w", id, c.args[0], err)
	}
	chain, err := identity.ParseCertificates(out)
	if err == nil {
		chain, err = Check(chain, id, o.Public, o.Life, c.trusted(), c.now())
	}
	if err == nil && chain[0].NotBefore.Before(o.Begin) {
		err = fmt.Errorf("the certificate begins before the revocation of this name (%s): have the CA date it back by less, and try again", o.Begin.UTC().Format(time.RFC3339))
	}
	if err != nil {
		return nil, fmt.Errorf("issue a certificate for %s: what ca_command %s wrote: %w", id, c.args[0], err)
	}
	return chain, nil
}

func (c *Command) run(ctx context.Context, id identity.ID, o Order) ([]byte, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Stdin = bytes.NewReader(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: o.Request}))
	cmd.Env = append(cmd.Environ(), "NETPORT_URI="+id.String(), "NETPORT_ROLE="+string(o.Role), "NETPORT_NAME="+o.Name, "NETPORT_LIFE="+o.Life.String())
	// It may have started others, which end with it; one of them that got away may hold
	// its output open for ever.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, complaint := limited{stop: stop}, limited{stop: stop}
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	switch {
	case out.full || complaint.full:
		return nil, fmt.Errorf("it wrote more than %d bytes", commandOutput)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("it took longer than %v", commandTime)
	case err != nil:
		line, _, _ := strings.Cut(strings.TrimSpace(complaint.kept.String()), "\n")
		if line == "" {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %.200q", err, line)
	}
	return out.kept.Bytes(), nil
}

// limited keeps the first bytes that are written to it, and stops the writer that
// writes more. It is no bytes.Buffer itself: that would read without a limit.
type limited struct {
	kept bytes.Buffer
	full bool
	stop func()
}

func (l *limited) Write(b []byte) (int, error) {
	if l.kept.Len()+len(b) > commandOutput {
		l.full = true
		l.stop()
		return 0, errors.New("too much output")
	}
	return l.kept.Write(b)
}

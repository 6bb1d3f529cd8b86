package daemon

import (
	"os"
	"strings"

	"github.com/netport/netport/lab/topo"
)

// Join adds a portal as an operator does who never has its key: it joins with a token. Then it is as with Portal.
func (n *Network) Join(host *topo.Host, options ...Option) *Portal {
	n.t.Helper()
	p := &Portal{n.daemon("portal", host)}
	n.Rejoin(p, options...)
	return p
}

// JoinWith is Join with another program, as Install makes it.
func (n *Network) JoinWith(host *topo.Host, change func(program []byte) []byte, options ...Option) *Portal {
	n.t.Helper()
	p := &Portal{n.daemon("portal", host)}
	p.Install(change)
	n.Rejoin(p, options...)
	return p
}

// Rejoin makes a portal that does not run, or has never run, join anew, with a new key.
func (n *Network) Rejoin(p *Portal, options ...Option) {
	n.t.Helper()
	if err := os.RemoveAll(p.dir); err != nil {
		n.t.Fatal(err)
	}
	var args []string
	for _, o := range options {
		args = append(args, o.args...)
	}
	if err := n.TryJoin(p, n.Invite("portal", p.name), args...); err != nil {
		n.t.Fatal(err)
	}
	p.configure(append([]Option{Set("drain", "0s"), Set("direct", false)}, options...))
	p.Start()
}

// Invite returns a token that the server has printed; args are those of its command.
func (n *Network) Invite(args ...string) string {
	n.t.Helper()
	return n.Server.Run(append([]string{"invite"}, args...)...)
}

// TryJoin has a portal's program join with a token, and more arguments, without starting its daemon.
func (n *Network) TryJoin(p *Portal, token string, args ...string) error {
	n.t.Helper()
	cmd := p.Command(append([]string{"join"}, args...)...)
	cmd.Stdin = strings.NewReader(token)
	_, err := p.output(cmd)
	return err
}

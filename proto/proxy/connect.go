package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"
)

const (
	// maxAnswer is how much of a proxy's answer is read, in bytes: its status line and
	// its header.
	maxAnswer = 16 << 10
	// maxTries bounds the connections for one: without proof, with it, and with a
	// nonce that is not stale.
	maxTries = 3
	// maxQuoted is how much of what a proxy says is repeated.
	maxQuoted = 120
)

// answer is what a proxy says to CONNECT.
type answer struct {
	status string // the whole line
	code   string
	header textproto.MIMEHeader
}

// connect is DialContext through an HTTP proxy. What the proxy asked for once it is told at
// once from then on. Each proof is given on a connection of its own: the answer that asks for it
// need not be read to its end then.
func (p *Proxy) connect(ctx context.Context, d *net.Dialer, address string) (net.Conn, error) {
	if strings.ContainsFunc(address, isControl) || strings.Contains(address, " ") {
		return nil, fmt.Errorf("%q is no address", address)
	}
	for try := 1; ; try++ {
		proof, known, err := p.proof(address)
		if err != nil {
			return nil, err
		}
		var a answer
		conn, err := p.once(ctx, d, func(conn net.Conn) error {
			a, err = p.ask(conn, address, proof)
			return err
		})
		if err == nil {
			p.passed(known, a.header.Get("Proxy-Authentication-Info"))
			return conn, nil
		}
		if a.code != "407" {
			return nil, err
		}
		again, err := p.challenged(a, known, try)
		if !again {
			return nil, err
		}
	}
}

// ask has the proxy connect. Where it does not, the error says so, and the answer is there.
func (p *Proxy) ask(conn net.Conn, address, proof string) (answer, error) {
	request := "CONNECT " + address + " HTTP/1.1\r\nHost: " + address + "\r\n"
	if proof != "" {
		request += "Proxy-Authorization: " + proof + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return answer{}, p.errorf(Unreached, "not asked: %w", err)
	}
	in := bufio.NewReader(io.LimitReader(conn, maxAnswer))
	read := textproto.NewReader(in)
	status, err := read.ReadLine()
	if err != nil {
		return answer{}, p.errorf(Unreached, "did not answer: %w", err)
	}
	version, rest, _ := strings.Cut(status, " ")
	a := answer{status: status}
	a.code, _, _ = strings.Cut(rest, " ")
	if !strings.HasPrefix(version, "HTTP/1.") || len(a.code) != 3 {
		return answer{}, p.errorf(Unreached, "what answers there is no HTTP proxy: %s", quote(status))
	}
	if a.header, err = read.ReadMIMEHeader(); err != nil {
		return answer{}, p.errorf(Unreached, "did not answer in full: %w", err)
	}
	switch {
	case a.code[0] != '2':
		return a, p.errorf(Declined, "it does not connect to %s: it says %s", address, quote(status))
	case in.Buffered() > 0: // nobody speaks before a TLS client
		return answer{}, p.errorf(Unreached, "it said %s and then something that nobody has asked for", quote(status))
	}
	return a, nil
}

func quote(s string) string { return fmt.Sprintf("%.*q", maxQuoted, s) }

// challenged takes that the proxy asks for proof, and reports whether there is another to try.
func (p *Proxy) challenged(a answer, used *challenge, try int) (bool, error) {
	asked, schemes := strongest(a.header["Proxy-Authenticate"])
	switch {
	case p.user == "":
		return false, p.errorf(Unauthorized, "it wants a user and a password (%s): it says %s", schemes, quote(a.status))
	case asked == nil:
		return false, p.errorf(Unauthorized, "it wants proof of a kind that is not known here (%s; known are Digest and Basic): it says %s", schemes, quote(a.status))
	case used != nil && (try > 1 && !asked.stale || try == maxTries || !asked.digest && !used.digest):
		p.forget(used)
		return false, p.errorf(Unauthorized, "it refuses the user and password: it says %s", quote(a.status))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = asked
	return true, nil
}

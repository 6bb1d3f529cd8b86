package proxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
)

// The numbers of SOCKS5 (RFC 1928) and of its user and password (RFC 1929).
const (
	socksVersion  = 5
	socksNoProof  = 0
	socksPassword = 2
	socksConnect  = 1
	socksIPv4     = 1
	socksName     = 3
	socksIPv6     = 4
	proofVersion  = 1
)

// socks has a SOCKS5 proxy connect.
func (p *Proxy) socks(conn net.Conn, address string) error {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return fmt.Errorf("port %q is none", text)
	}
	methods := []byte{socksNoProof}
	if p.user != "" {
		methods = append(methods, socksPassword)
	}
	var chosen [2]byte
	if err := p.say(conn, append([]byte{socksVersion, byte(len(methods))}, methods...), chosen[:]); err != nil {
		return err
	}
	switch {
	case chosen[0] != socksVersion:
		return p.errorf(Unreached, "what answers there is no SOCKS5 proxy: its first byte is %d", chosen[0])
	case chosen[1] == socksPassword && p.user != "":
		if err := p.socksProof(conn); err != nil {
			return err
		}
	case chosen[1] == socksNoProof:
	case p.user == "":
		return p.errorf(Unauthorized, "it wants proof, perhaps a user and a password")
	default:
		return p.errorf(Unauthorized, "it wants proof of a kind that is not known here (known is that of a user and password)")
	}
	request := []byte{socksVersion, socksConnect, 0}
	if a, err := netip.ParseAddr(host); err != nil {
		if len(host) > 255 {
			return fmt.Errorf("a name of %d bytes: SOCKS5 has room for 255", len(host))
		}
		request = append(append(request, socksName, byte(len(host))), host...)
	} else if a = a.Unmap(); a.Is4() {
		request = append(append(request, socksIPv4), a.AsSlice()...)
	} else {
		request = append(append(request, socksIPv6), a.AsSlice()...)
	}
	request = append(request, byte(port>>8), byte(port))
	var reply [4]byte
	if err := p.say(conn, request, reply[:]); err != nil {
		return err
	}
	if reply[0] != socksVersion {
		return p.errorf(Unreached, "what answers there is no SOCKS5 proxy")
	}
	if reply[1] != 0 {
		return p.errorf(Declined, "it does not connect to %s: it says %s", address, socksReply(reply[1]))
	}
	return p.skipBound(conn, reply[3])
}

// socksProof gives the user and password.
func (p *Proxy) socksProof(conn net.Conn) error {
	password, err := p.secret()
	if err != nil {
		return &Error{p.String(), Unauthorized, err}
	}
	proof := append([]byte{proofVersion, byte(len(p.user))}, p.user...)
	proof = append(append(proof, byte(len(password))), password...)
	var verdict [2]byte
	if err := p.say(conn, proof, verdict[:]); err != nil {
		return err
	}
	if verdict[1] != 0 {
		return p.errorf(Unauthorized, "it refuses the user and password")
	}
	return nil
}

// skipBound takes the rest of a reply: where the proxy has connected from.
func (p *Proxy) skipBound(conn net.Conn, kind byte) error {
	length := 0
	switch kind {
	case socksIPv4:
		length = 4
	case socksIPv6:
		length = 16
	case socksName:
		var n [1]byte
		if _, err := io.ReadFull(conn, n[:]); err != nil {
			return p.errorf(Unreached, "did not answer in full: %w", err)
		}
		length = int(n[0])
	default:
		return p.errorf(Unreached, "it answers with an address of kind %d, which there is not", kind)
	}
	if _, err := io.ReadFull(conn, make([]byte, length+2)); err != nil {
		return p.errorf(Unreached, "did not answer in full: %w", err)
	}
	return nil
}

// say sends something and reads the answer, whose length is known.
func (p *Proxy) say(conn net.Conn, b, answer []byte) error {
	if _, err := conn.Write(b); err != nil {
		return p.errorf(Unreached, "not asked: %w", err)
	}
	if _, err := io.ReadFull(conn, answer); err != nil {
		return p.errorf(Unreached, "did not answer: %w", err)
	}
	return nil
}

// socksReply is the word for a reply (RFC 1928 section 6).
func socksReply(code byte) string {
	words := []string{"", "general failure", "not allowed by its rules", "network unreachable", "host unreachable", "connection refused", "time to live expired", "command not supported", "address type not supported"}
	if int(code) < len(words) {
		return fmt.Sprintf("%q (%d)", words[code], code)
	}
	return fmt.Sprintf("%d", code)
}

// Package proxy makes outbound TCP connections, through a proxy where one is set: by HTTP
// CONNECT (RFC 9110 section 9.3.6) or SOCKS5 (RFC 1928). What a connection is for, and who is
// at its other end, is proven over it by TLS: a proxy is trusted with nothing but the user
// and password that are for it.
//
// The proxy looks up names: it is given the host as the caller has it. There is no net/http
// here, which would make a portal larger by a quarter.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/netport/netport/proto/identity"
)

// Environment is the setting that has the variables of the environment name the proxy.
const Environment = "environment"

const (
	// talkTime bounds what is said with a proxy before a connection stands.
	talkTime = 15 * time.Second
	// maxSecret is the longest user and password that SOCKS5 has room for (RFC 1929), in bytes.
	maxSecret = 255
)

// Settings say which connections go through which proxy. Nil ones name none. They are safe
// for concurrent use.
type Settings struct {
	proxy *Proxy
	not   []exception
}

// New reads a setting: "" for no proxy; the URL of one for all connections but those to this
// machine itself, as http://USER@HOST:PORT, https:// (TLS to the proxy) or socks5://; or
// Environment, which goes by HTTPS_PROXY, ALL_PROXY and NO_PROXY, or the same in small letters,
// as getenv has them. passwordFile has the password of the URL's user in its first line, where the
// URL has none, and is read when the proxy asks for it: its owner alone may be able to. "" is
// none. No error repeats a password.
func New(setting, passwordFile string, getenv func(string) string) (*Settings, error) {
	switch setting {
	case "":
		if passwordFile != "" {
			return nil, errors.New("there is a password for a proxy, and no proxy")
		}
		return nil, nil
	case Environment:
		name, value := firstOf(getenv, "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
		if value == "" {
			return nil, nil
		}
		p, err := parse(value, passwordFile)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		_, list := firstOf(getenv, "NO_PROXY", "no_proxy")
		return &Settings{p, parseExceptions(list)}, nil
	}
	p, err := parse(setting, passwordFile)
	if err != nil {
		return nil, err
	}
	return &Settings{proxy: p}, nil
}

func firstOf(getenv func(string) string, names ...string) (name, value string) {
	for _, name := range names {
		if value := strings.TrimSpace(getenv(name)); value != "" {
			return name, value
		}
	}
	return "", ""
}

// HasPassword reports whether a setting holds a password itself.
func HasPassword(setting string) bool {
	_, rest, found := strings.Cut(setting, "://")
	if !found {
		rest = setting
	}
	user, _, found := strings.Cut(rest, "@")
	return found && strings.Contains(user, ":")
}

// Proxy is one proxy. It is safe for concurrent use.
type Proxy struct {
	scheme         string // http, https or socks5
	address        string // "host:port"
	user, password string
	file           string // with the password; empty: none

	mu    sync.Mutex // guards the following
	known *challenge // that the last connection was let through with; nil: none was asked for
}

// parse reads the URL of a proxy; one without a scheme is that of an HTTP proxy.
func parse(text, file string) (*Proxy, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil { // whose text has the password
		return nil, errors.New(`the proxy is no URL: write it as "http://HOST:PORT" or "socks5://HOST:PORT", and what is special in a user or password as %XX`)
	}
	p := &Proxy{scheme: u.Scheme}
	port := ""
	switch u.Scheme {
	case "http":
		port = "80"
	case "https":
		port = "443"
	case "socks5", "socks5h":
		p.scheme, port = "socks5", "1080"
	default:
		return nil, fmt.Errorf("a proxy of the kind %q is not known: use http, https or socks5", u.Scheme)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || u.Hostname() == "" {
		return nil, errors.New(`the proxy has no host, or no port that exists: write it as "http://HOST:PORT" or "socks5://HOST:PORT"`)
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the proxy's URL has something behind its port: leave that out")
	}
	p.address = net.JoinHostPort(u.Hostname(), port)
	p.user, p.file = u.User.Username(), file
	if own, ok := u.User.Password(); ok {
		if file != "" {
			return nil, errors.New("the proxy has two passwords, in its URL and in a file: leave one out")
		}
		p.password = own
	}
	switch {
	case p.user == "" && p.password+file != "":
		return nil, errors.New("there is a password for the proxy, and no user: write the URL as http://USER@HOST:PORT")
	case strings.Contains(p.user, ":"):
		return nil, errors.New(`the proxy's user has a ":", which cannot be sent`)
	}
	if err := checkSecret(p.user); err != nil {
		return nil, err
	}
	if err := checkSecret(p.password); err != nil {
		return nil, err
	}
	return p, nil
}

// secret returns the password.
func (p *Proxy) secret() (string, error) {
	if p.file == "" {
		return p.password, nil
	}
	b, err := identity.ReadSecret(p.file)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	line = strings.TrimSuffix(line, "\r")
	if err := checkSecret(line); err != nil {
		return "", fmt.Errorf("%s: %w", p.file, err)
	}
	return line, nil
}

func checkSecret(s string) error {
	switch {
	case len(s) > maxSecret:
		return fmt.Errorf("the proxy's user or password is longer than %d bytes", maxSecret)
	case strings.ContainsFunc(s, isControl):
		return errors.New("the proxy's user or password has a character that cannot be sent")
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// String returns the proxy's URL without user and password.
func (p *Proxy) String() string { return p.scheme + "://" + p.address }

// Through returns the proxy for connections to "host:port"; nil: they are made directly.
func (s *Settings) Through(address string) *Proxy {
	if s == nil {
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil // which dialling says
	}
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.Unmap().IsLoopback() {
		return nil
	}
	for _, e := range s.not {
		if e.covers(host, port) {
			return nil
		}
	}
	return s.proxy
}

// String returns the URL of the proxy without user and password; "none" if there is none.
func (s *Settings) String() string {
	if s == nil {
		return "none"
	}
	return s.proxy.String()
}

// DialContext connects to "host:port" over TCP, with d, directly or through a proxy; see
// Proxy.DialContext.
func (s *Settings) DialContext(ctx context.Context, d *net.Dialer, address string) (net.Conn, error) {
	return s.Through(address).DialContext(ctx, d, address)
}

// DialContext connects to "host:port" over TCP through the proxy, to which d dials; through a
// nil one directly. What fails at a proxy has an *Error. The connection is a *net.TCPConn, or a
// *tls.Conn over one where the proxy's URL is https.
func (p *Proxy) DialContext(ctx context.Context, d *net.Dialer, address string) (net.Conn, error) {
	if p == nil {
		return d.DialContext(ctx, "tcp", address)
	}
	ctx, cancel := context.WithTimeout(ctx, talkTime)
	defer cancel()
	if p.scheme == "socks5" {
		return p.once(ctx, d, func(conn net.Conn) error { return p.socks(conn, address) })
	}
	return p.connect(ctx, d, address)
}

// once connects to the proxy and talks to it.
func (p *Proxy) once(ctx context.Context, d *net.Dialer, talk func(net.Conn) error) (net.Conn, error) {
	conn, err := d.DialContext(ctx, "tcp", p.address)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
			err = op.Err // the address is named already
		}
		return nil, &Error{p.String(), Unreached, fmt.Errorf("not reached: %w", err)}
	}
	raw := conn // whatever conn becomes: the end of ctx may come while that changes
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	if p.scheme == "https" {
		host, _, _ := net.SplitHostPort(p.address)
		secure := tls.Client(raw, &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12})
		if err = secure.HandshakeContext(ctx); err != nil {
			err = &Error{p.String(), Unreached, fmt.Errorf("not proven: %w", err)}
		}
		conn = secure
	}
	if err == nil {
		err = talk(conn)
	}
	if !stop() {
		err = &Error{p.String(), Unreached, fmt.Errorf("did not answer: %w", context.Cause(ctx))}
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// Fault is what a proxy has to do with a connection that failed.
type Fault int

// The faults.
const (
	Unreached    Fault = iota + 1 // there is no proxy, or it does not answer as one
	Unauthorized                  // it wants a user and password, or others
	Declined                      // it makes no connection there
)

// Error says why there is no connection through a proxy.
type Error struct {
	Proxy string // URL, without user and password
	Fault Fault
	Err   error
}

func (e *Error) Error() string { return "proxy " + e.Proxy + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// errorf makes an Error of words.
func (p *Proxy) errorf(f Fault, format string, args ...any) error {
	return &Error{p.String(), f, fmt.Errorf(format, args...)}
}

// Package scrape serves a daemon's metrics over HTTP to this machine alone: on a Unix
// socket, or on a port of a loopback address. Server and relay use it; the portal
// speaks no HTTP.
//
// Only GET and HEAD of /metrics are answered. On a loopback port the Host header must
// be that address or localhost: a web page whose name was made to lead there (DNS
// rebinding) gets nothing.
package scrape

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/metrics"
)

const (
	path        = "/metrics"
	contentType = "text/plain; version=0.0.4; charset=utf-8"

	// maxConnections bounds those who ask at once. Each is answered once, and those who
	// do not ask, or do not read, are gone after these times.
	maxConnections = 16
	requestTime    = 5 * time.Second
	answerTime     = 20 * time.Second
	stopTime       = time.Second
	maxHeader      = 8 << 10
)

// Address is where metrics are served. The zero value is nowhere.
type Address struct {
	Network string // "tcp" or "unix"
	Address string // with a port, or of a file
}

// IsZero reports whether the address is nowhere.
func (a Address) IsZero() bool { return a == Address{} }

func (a Address) String() string {
	if a.Network == "unix" {
		return "unix://" + a.Address
	}
	return a.Address
}

// ParseAddress reads "unix:///PATH", or "ADDRESS:PORT" with a loopback address. The
// empty text is the zero Address.
func ParseAddress(s string) (Address, error) {
	const ways = `write "unix:///run/netport/metrics.sock" or a loopback address with a port, "127.0.0.1:9401"`
	if s == "" {
		return Address{}, nil
	}
	if file, unix := strings.CutPrefix(s, "unix://"); unix {
		if !filepath.IsAbs(file) || filepath.Clean(file) != file || file == "/" {
			return Address{}, fmt.Errorf("%q names no file from the root on: %s", s, ways)
		}
		return Address{"unix", file}, nil
	}
	a, err := netip.ParseAddrPort(s)
	switch {
	case err != nil || a.Addr().Is4In6() || a.Addr().Zone() != "":
		return Address{}, fmt.Errorf("%q is no address for metrics: %s", s, ways)
	case !a.Addr().IsLoopback():
		return Address{}, fmt.Errorf("metrics are not served at %s, where others can reach it: %s", s, ways)
	case a.Port() == 0:
		return Address{}, fmt.Errorf("%q has no port: %s", s, ways)
	}
	return Address{"tcp", a.String()}, nil
}

// Server serves one address.
type Server struct {
	listener net.Listener
	page     func() *metrics.Page
	log      *slog.Logger
	making   sync.Mutex // held while a page is made: one at a time
}

// Listen takes the address for this process. page makes the page for each who asks,
// one after the other. Run must follow, or Close.
func Listen(a Address, page func() *metrics.Page, log *slog.Logger) (*Server, error) {
	var l net.Listener
	var err error
	if a.Network == "unix" {
		l, err = local.ListenSocket(a.Address)
	} else {
		l, err = net.Listen("tcp", a.Address)
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("serve metrics: %w; another program has it: stop that, or choose another port in \"metrics\"", err)
	case err != nil:
		return nil, fmt.Errorf("serve metrics: %w", err)
	}
	return &Server{listener: l, page: page, log: log}, nil
}

// Close gives the address back where Run was never called.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx is cancelled.
func (s *Server) Run(ctx context.Context) error {
	h := &http.Server{
		Handler: s, ReadHeaderTimeout: requestTime, ReadTimeout: requestTime, WriteTimeout: answerTime, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	h.SetKeepAlivesEnabled(false)
	var stopping sync.WaitGroup
	defer stopping.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopping.Go(func() {
		<-ctx.Done()
		last, done := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer done()
		if h.Shutdown(last) != nil {
			h.Close()
		}
	})
	s.log.Info("metrics are served", "at", s.listener.Addr().String())
	err := h.Serve(&bounded{Listener: s.listener, room: make(chan struct{}, maxConnections)})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve metrics: %w", err)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case !s.means(r.Host):
		http.Error(w, "metrics are served to this machine by its address or as localhost", http.StatusMisdirectedRequest)
	case r.URL.Path != path:
		http.Error(w, "there is only "+path, http.StatusNotFound)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "metrics are only read", http.StatusMethodNotAllowed)
	default:
		text := s.text()
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		w.Write(text) // to whom nothing can be said about an error
	}
}

// text makes the page.
func (s *Server) text() []byte {
	s.making.Lock()
	defer s.making.Unlock()
	return s.page().AppendTo(nil)
}

// means reports whether a Host header means the address that is served. At a Unix
// socket it means nothing: no web page gets there.
func (s *Server) means(host string) bool {
	own, ok := s.listener.Addr().(*net.TCPAddr)
	if !ok {
		return true
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil || port != strconv.Itoa(own.Port) {
		return false
	}
	a, err := netip.ParseAddr(name)
	return strings.EqualFold(name, "localhost") || err == nil && a == own.AddrPort().Addr().Unmap()
}

// bounded accepts no more connections at once than there is room for.
type bounded struct {
	net.Listener
	room chan struct{}
}

// Accept implements net.Listener. Who finds no room is turned away.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.room <- struct{}{}:
			return &guest{Conn: c, leave: sync.OnceFunc(func() { <-b.room })}, nil
		default:
			c.Close()
		}
	}
}

// guest is a connection that has its place in the room.
type guest struct {
	net.Conn
	leave func()
}

// Close implements net.Conn. Who sees the end of the connection finds that the place is free.
func (g *guest) Close() error {
	g.leave()
	return g.Conn.Close()
}

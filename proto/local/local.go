package local

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"sync"
	"time"

	"github.com/netport/netport/proto/reserve"
)

const (
	typeRequest = 1
	typeResult  = 2
	typeError   = 3
	typeSign    = 4 // of life: the command is worked on; no body

	headerLen  = 6
	maxRequest = 64 << 20 // a policy with all its signatures travels in one
	maxAnswer  = 64 << 20
	maxPath    = 107 // of sockaddr_un, without the final NUL
	maxCallers = 1024

	// callTimeout bounds the reading of a request, and the writing of an
	// answer: a caller that hangs gives its place to another.
	callTimeout = 10 * time.Second
)

type request struct {
	Command string          `json:"command"`
	Args    json.RawMessage `json:"args,omitempty"`
}

// Handler answers one command. Its result is sent as JSON; the text of its
// error is sent as it is.
type Handler func(ctx context.Context, args json.RawMessage) (any, error)

// StreamHandler answers one command that goes on as a stream. It returns what
// to run on the connection after the answer was sent, or an error instead.
type StreamHandler func(ctx context.Context, args json.RawMessage) (func(context.Context, net.Conn), error)

// Server serves one socket.
type Server struct {
	path     string
	listener *net.UnixListener
	lock     *os.File
	log      *slog.Logger
	handlers map[string]served
	spare    reserve.Spare // for a caller when there is no descriptor left
}

// served is one command.
type served struct {
	// answer answers it: with a result as JSON, and maybe with what to run on the
	// connection afterwards.
	answer func(ctx context.Context, args json.RawMessage) (result []byte, run func(context.Context, net.Conn), err error)
	signs  time.Duration // how long signs of life are given at most
}

// Listen takes the socket at path for this process. Its folder must exist, and others
// must not be able to write in it or to put another in its place.
func Listen(path string, log *slog.Logger) (*Server, error) {
	s, err := ListenSocket(path)
	if err != nil {
		return nil, err
	}
	server := &Server{path: path, listener: s.UnixListener, lock: s.lock, log: log, handlers: make(map[string]served)}
	server.spare.Hold()
	return server, nil
}

// Handle registers a command that takes workTime at most: whoever asks gives up some time
// after that. All commands are registered before Run.
func (s *Server) Handle(command string, h Handler) { s.handle(command, h, workTime) }

// HandleLong registers a command that takes as long as it takes.
func (s *Server) HandleLong(command string, h Handler) { s.handle(command, h, math.MaxInt64) }

func (s *Server) handle(command string, h Handler, signs time.Duration) {
	s.handlers[command] = served{func(ctx context.Context, args json.RawMessage) ([]byte, func(context.Context, net.Conn), error) {
		v, err := h(ctx, args)
		if err != nil {
			return nil, nil, err
		}
		b, err := json.Marshal(v)
		return b, nil, err
	}, signs}
}

// HandleStream registers a command that goes on as a stream, within workTime.
func (s *Server) HandleStream(command string, h StreamHandler) {
	s.handlers[command] = served{func(ctx context.Context, args json.RawMessage) ([]byte, func(context.Context, net.Conn), error) {
		run, err := h(ctx, args)
		return []byte("null"), run, err
	}, workTime}
}

// Run serves callers until ctx is cancelled, then waits for those it serves,
// whose context is cancelled too, and removes the socket.
func (s *Server) Run(ctx context.Context) error {
	defer s.lock.Close()
	defer s.spare.Close()
	var callers sync.WaitGroup
	defer callers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { s.listener.Close() })()
	room := make(chan struct{}, maxCallers)
	said := false
	for {
		c, err := s.listener.AcceptUnix()
		switch {
		case err == nil:
			said = false
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on socket %s: %w", s.path, err)
		case s.spare.Lend(err):
			continue
		default: // out of descriptors: let those in use come back
			if !said {
				said = true
				s.log.Warn("caller not accepted", "socket", s.path, "error", err)
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			s.spare.Hold()
			continue
		}
		select {
		case room <- struct{}{}:
		default:
			answer(c, callTimeout, typeError, []byte("the daemon is busy with other callers; try again"))
			c.Close()
			continue
		}
		callers.Go(func() {
			defer func() { <-room }()
			s.serve(ctx, c)
			s.spare.Hold()
		})
	}
}

// Close gives the socket back when Run was never called.
func (s *Server) Close() error {
	s.spare.Close()
	return errors.Join(s.listener.Close(), s.lock.Close())
}

func (s *Server) serve(ctx context.Context, c *net.UnixConn) {
	defer c.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	caller, err := checkPeer(c)
	if err != nil {
		s.log.Warn("caller refused", "socket", s.path, "error", err)
		return
	}
	s.Answer(WithCaller(ctx, caller), c, callTimeout, nil)
}

// Answer serves one request of a caller who has proven himself on another connection
// (WithCaller), which it closes. The request, and then the answer, has the time limit to
// pass. admit, if it is not nil, decides about the request when all of it is here; its
// error is the answer. When ctx is cancelled the connection is closed at once.
func (s *Server) Answer(ctx context.Context, c net.Conn, limit time.Duration, admit func(command string, args json.RawMessage) error) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	c.SetReadDeadline(time.Now().Add(limit))
	t, b, err := readFrame(c, maxRequest)
	if err != nil || t != typeRequest {
		return
	}
	c.SetReadDeadline(time.Time{})
	var r request
	if err := json.Unmarshal(b, &r); err != nil {
		answer(c, limit, typeError, []byte("the request is not JSON"))
		return
	}
	h, ok := s.handlers[r.Command]
	if !ok {
		answer(c, limit, typeError, fmt.Appendf(nil, "this daemon has no command %q: are the command and the daemon of the same version?", r.Command))
		return
	}
	if admit != nil {
		if err := admit(r.Command, r.Args); err != nil {
			answer(c, limit, typeError, []byte(err.Error()))
			return
		}
	}
	quiet := giveSigns(c, limit, h.signs)
	result, run, err := h.answer(ctx, r.Args)
	quiet()
	if err != nil {
		answer(c, limit, typeError, []byte(err.Error()))
		return
	}
	if answer(c, limit, typeResult, result) == nil && run != nil {
		run(ctx, c)
	}
}

// answer writes one frame to a caller that may not read.
func answer(c net.Conn, limit time.Duration, t uint16, body []byte) error {
	c.SetWriteDeadline(time.Now().Add(limit))
	defer c.SetWriteDeadline(time.Time{})
	return writeFrame(c, t, body)
}

func writeFrame(w io.Writer, t uint16, body []byte) error {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, headerLen+len(body)), t)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}

// readFrame reads one frame. The body grows as bytes arrive: a length alone
// allocates nothing.
func readFrame(r io.Reader, limit int64) (uint16, []byte, error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := int64(binary.BigEndian.Uint32(h[2:]))
	if n > limit {
		return 0, nil, fmt.Errorf("frame of %d bytes: at most %d are allowed", n, limit)
	}
	b, err := io.ReadAll(io.LimitReader(r, n))
	if err == nil && int64(len(b)) < n {
		err = io.ErrUnexpectedEOF
	}
	return binary.BigEndian.Uint16(h[:]), b, err
}

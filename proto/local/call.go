package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
	"time"
)

// ErrNoDaemon is wrapped by Call and Stream when nobody serves the socket.
var ErrNoDaemon = errors.New("no daemon is running there")

// Error is what a daemon answered instead of a result.
type Error struct{ Text string }

func (e *Error) Error() string { return e.Text }

// Call asks the daemon at path and decodes its result into result, which may
// be nil. It takes as long as the daemon works on the command, and gives up (ErrSilent) a
// daemon that takes no caller or says nothing for 10 s, or for a minute after a sign of life.
func Call(ctx context.Context, path, command string, args, result any) error {
	c, b, err := ask(ctx, path, command, args, here)
	if err != nil {
		return err
	}
	defer c.Close()
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(b, result); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

// Stream asks the daemon at path for a stream. Until that begins, it is as patient as Call.
func Stream(ctx context.Context, path, command string, args any) (*net.UnixConn, error) {
	c, _, err := ask(ctx, path, command, args, here)
	return c, err
}

func ask(ctx context.Context, path, command string, args any, p patience) (_ *net.UnixConn, _ []byte, err error) {
	b, err := encode(command, args)
	if err != nil {
		return nil, nil, fmt.Errorf("ask the daemon at %s: %w", path, err)
	}
	c, err := dial(ctx, path, p.first)
	if err != nil {
		return nil, nil, dialError(path, err)
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	b, err = exchange(ctx, c, b, p)
	var said *Error
	switch {
	case err == nil:
		return c, b, nil
	case ctx.Err() != nil, errors.As(err, &said):
		return nil, nil, err
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return nil, nil, fmt.Errorf("ask the daemon at %s: it hung up; it serves only its own user and root", path)
	case errors.Is(err, ErrSilent):
		return nil, nil, fmt.Errorf("ask the daemon at %s: %w%s", path, err, silentHint)
	}
	return nil, nil, fmt.Errorf("ask the daemon at %s: %w", path, err)
}

// dial connects to the daemon at path. Where as many callers wait for it as the system
// lets wait, it tries for so long to be one of them.
func dial(ctx context.Context, path string, limit time.Duration) (*net.UnixConn, error) {
	end := time.NewTimer(limit)
	defer end.Stop()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return c.(*net.UnixConn), nil
		}
		if !errors.Is(err, syscall.EAGAIN) {
			return nil, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-end.C:
			return nil, fmt.Errorf("%w: none of the callers that wait was taken for %v", ErrSilent, limit)
		}
	}
}

// CallOver is Call over a connection on which both sides have proven themselves, and
// where the first sign may take 2 minutes. Its errors, but for an *Error, are those of the
// connection.
func CallOver(ctx context.Context, c net.Conn, command string, args, result any) error {
	b, err := encode(command, args)
	if err != nil {
		return err
	}
	if b, err = exchange(ctx, c, b, there); err != nil {
		return err
	}
	if err := json.Unmarshal(b, result); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

// encode returns the body of a request.
func encode(command string, args any) ([]byte, error) {
	raw, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(request{command, raw})
	if err == nil && len(b) > maxRequest {
		err = fmt.Errorf("the request has %d bytes, at most %d are possible", len(b), maxRequest)
	}
	return b, err
}

// exchange sends a request and returns the result that comes, or the *Error.
func exchange(ctx context.Context, c net.Conn, b []byte, wait patience) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	p := &patient{c, ctx, wait.first}
	// A daemon that has no room answers and closes before it reads. Then this
	// fails; the answer is there all the same.
	if err := writeFrame(p, typeRequest, b); errors.Is(err, ErrSilent) {
		return nil, err
	}
	t, b, err := readFrame(p, maxAnswer)
	for err == nil && t == typeSign {
		p.limit = wait.later
		t, b, err = readFrame(p, maxAnswer)
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, err
	case t == typeError:
		return nil, &Error{string(b)}
	case t != typeResult:
		return nil, fmt.Errorf("it answered with a frame of type %d", t)
	}
	c.SetDeadline(time.Time{}) // of a stream, the time is its owner's
	return b, nil
}

// silentHint says what to do about a daemon that gives no sign of life.
const silentHint = "; it is stopped, or hangs: its log may say why, and a restart helps"

func dialError(path string, err error) error {
	switch {
	case len(path) > maxPath:
		return fmt.Errorf("ask the daemon at %s: the path has %d bytes, at most %d are possible; choose a shorter one in its configuration", path, len(path), maxPath)
	case errors.Is(err, ErrSilent):
		return fmt.Errorf("ask the daemon at %s: %w%s", path, err, silentHint)
	case errors.Is(err, fs.ErrNotExist), isRefused(err):
		return fmt.Errorf("ask the daemon at %s: %w; start it with \"run\", or name its file with --config", path, ErrNoDaemon)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("ask the daemon at %s: permission denied; run this as the daemon's user or as root", path)
	}
	return fmt.Errorf("ask the daemon at %s: %w", path, err)
}

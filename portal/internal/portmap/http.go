package portmap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

const (
	// maxHead and maxBody bound an answer of a router.
	maxHead = 8 << 10
	maxBody = 64 << 10
)

// web speaks HTTP with a router: one request on a connection, whose answer is small and
// leads nowhere else. net/http would be 1.2 MB of the portal.
type web struct{ place }

// get fetches a page.
func (w web) get(ctx context.Context, u *url.URL) ([]byte, error) {
	status, body, err := w.do(ctx, u, "GET", "", nil)
	if err == nil && status != 200 {
		err = fmt.Errorf("the router answers with status %d", status)
	}
	return body, err
}

// do sends a request, with more lines of a head that end with CR LF, and returns the answer.
func (w web) do(ctx context.Context, u *url.URL, method, head string, body []byte) (status int, answer []byte, err error) {
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(w.local, 0)), KeepAlive: -1}
	conn, err := dialer.DialContext(ctx, "tcp4", u.Host)
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	request := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s", method, u.RequestURI(), u.Host, head)
	if body != nil {
		request = fmt.Appendf(request, "Content-Length: %d\r\n", len(body))
	}
	request = append(append(request, "\r\n"...), body...)
	if _, err = conn.Write(request); err == nil {
		status, answer, err = readAnswer(conn)
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("the router takes too long: %w", ctx.Err())
	}
	return status, answer, err
}

var (
	errHead = errors.New("the router's answer has no head of HTTP")
	errLong = fmt.Errorf("the router's answer has more than %d KB", maxBody>>10)
)

// readAnswer reads an answer of HTTP/1.1 (RFC 9112).
func readAnswer(conn io.Reader) (status int, body []byte, err error) {
	limited := &io.LimitedReader{R: conn, N: maxHead}
	buffered := bufio.NewReaderSize(limited, 2048)
	r := textproto.NewReader(buffered)
	line, err := r.ReadLine()
	if err != nil {
		return 0, nil, errHead
	}
	version, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err = strconv.Atoi(code)
	if err != nil || !strings.HasPrefix(version, "HTTP/1.") {
		return 0, nil, errHead
	}
	head, err := r.ReadMIMEHeader()
	if err != nil {
		return 0, nil, errHead
	}
	limited.N = 2*maxBody + maxHead // chunks have heads of their own
	switch length := head.Get("Content-Length"); {
	case strings.EqualFold(head.Get("Transfer-Encoding"), "chunked"):
		body, err = chunks(r)
	case length != "":
		var n uint64
		if n, err = strconv.ParseUint(length, 10, 31); err != nil || n > maxBody {
			return 0, nil, errLong
		}
		body = make([]byte, n)
		_, err = io.ReadFull(buffered, body)
	default:
		body, err = io.ReadAll(io.LimitReader(buffered, maxBody+1))
	}
	switch {
	case err != nil:
		return 0, nil, fmt.Errorf("read the router's answer: %w", err)
	case len(body) > maxBody:
		return 0, nil, errLong
	}
	return status, body, nil
}

// chunks reads a body in chunks (RFC 9112 section 7.1), without its trailer.
func chunks(r *textproto.Reader) ([]byte, error) {
	var body bytes.Buffer
	for {
		line, err := r.ReadLine()
		if err != nil {
			return nil, err
		}
		size, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(strings.TrimSpace(size), 16, 31)
		switch {
		case err != nil:
			return nil, errors.New("a chunk has no length")
		case n == 0:
			return body.Bytes(), nil
		case uint64(body.Len())+n > maxBody:
			return nil, errLong
		}
		if _, err := io.CopyN(&body, r.R, int64(n)); err != nil {
			return nil, err
		}
		if _, err := r.ReadLine(); err != nil {
			return nil, err
		}
	}
}

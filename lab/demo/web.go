package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// fileName is the one large file that the web server of the demo offers.
const fileName = "film.bin"

// writeFile makes a file of size bytes that no compression can shorten and returns
// its SHA-256.
func writeFile(path string, size int64) (string, error) {
	f, err := os.Create(path)
	if err != nil {
		return "", fmt.Errorf("make the file for the web server: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	random := rand.NewChaCha8([32]byte([]byte("a film of noise, the same always")))
	if _, err := io.CopyN(io.MultiWriter(f, sum), random, size); err != nil {
		return "", fmt.Errorf("make the file for the web server: %w", err)
	}
	if err := f.Close(); err != nil {
		return "", fmt.Errorf("make the file for the web server: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// serveWeb serves the files of dir over HTTP on ln until ctx ends.
func serveWeb(ctx context.Context, ln net.Listener, dir string) error {
	srv := &http.Server{
		Handler:           http.FileServer(http.Dir(dir)),
		ReadHeaderTimeout: 10 * time.Second,
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s over HTTP: %w", filepath.Base(dir), err)
	}
	return nil
}

// download is what fetching a file came to.
type download struct {
	Bytes  int64
	SHA256 string // in hexadecimal
	Took   time.Duration
	Pause  time.Duration // the longest in which nothing came
}

// rate is the speed of a download in MB (10^6 bytes) per second.
func (d download) rate() float64 {
	return float64(d.Bytes) / 1e6 / d.Took.Seconds()
}

// fetch gets url over a connection of its own, through no proxy, and hashes what
// comes. A body that is shorter than announced is an error. halfway, unless nil, is
// called when half of it has come.
func fetch(ctx context.Context, url string, halfway func()) (download, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return download{}, fmt.Errorf("fetch %s: %w", url, err)
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	start := time.Now()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return download{}, fmt.Errorf("fetch %s: %w", url, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return download{}, fmt.Errorf("fetch %s: the web server says %s", url, resp.Status)
	}
	sum := sha256.New()
	body := &timed{Reader: resp.Body, last: time.Now()}
	first := int64(0)
	if halfway != nil {
		if first, err = io.CopyN(sum, body, resp.ContentLength/2); err == nil {
			halfway()
		}
	}
	n := first
	if err == nil {
		n, err = io.CopyBuffer(sum, body, make([]byte, 1<<20))
		n += first
	}
	if err != nil {
		return download{}, fmt.Errorf("fetch %s: after %d bytes: %w", url, n, err)
	}
	return download{Bytes: n, SHA256: hex.EncodeToString(sum.Sum(nil)), Took: time.Since(start), Pause: body.pause}, nil
}

// timed notes the longest time between two reads that brought something.
type timed struct {
	io.Reader
	last  time.Time
	pause time.Duration
}

func (t *timed) Read(b []byte) (int, error) {
	n, err := t.Reader.Read(b)
	if n > 0 {
		now := time.Now()
		t.pause = max(t.pause, now.Sub(t.last))
		t.last = now
	}
	return n, err
}

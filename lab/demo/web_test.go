package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// listenTCP opens a listener on a free port of loopback.
func listenTCP(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func TestFetchedFileHasTheChecksumOfTheWrittenOne(t *testing.T) {
	dir := t.TempDir()
	const size = 3<<20 + 17
	want, err := writeFile(filepath.Join(dir, fileName), size)
	if err != nil {
		t.Fatal(err)
	}
	ln := listenTCP(t)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serveWeb(ctx, ln, dir) }()

	url, half := fmt.Sprintf("http://%s/%s", ln.Addr(), fileName), 0
	for _, halfway := range []func(){nil, func() { half++ }} {
		got, err := fetch(t.Context(), url, halfway)
		if err != nil {
			t.Fatal(err)
		}
		if got.Bytes != size || got.SHA256 != want {
			t.Errorf("fetched %d bytes with SHA-256 %s, want %d bytes with %s", got.Bytes, got.SHA256, size, want)
		}
	}
	if half != 1 {
		t.Errorf("halfway was called %d times, want once", half)
	}
	if _, err := fetch(t.Context(), fmt.Sprintf("http://%s/none", ln.Addr()), nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("fetch of a file that is not there: got error %v, want one with 404", err)
	}

	cancel()
	if err := <-served; err != nil {
		t.Errorf("serveWeb after its context ended: got %v, want nil", err)
	}
}

func TestTruncatedFileIsAnError(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, "only this")
	}))
	defer srv.Close()
	got, err := fetch(t.Context(), srv.URL, nil)
	if err == nil || !strings.Contains(err.Error(), "after 9 bytes") {
		t.Errorf("fetch of a truncated file: got %+v and error %v, want an error that says after how many bytes", got, err)
	}
}

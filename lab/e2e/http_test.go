package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/topo"
)

// webServer is an nginx that serves a folder.
type webServer struct {
	host *topo.Host
	dir  string // of its files; what lies in it is served
}

const (
	webPort   = 8000
	proxyPort = 8001 // wants the PROXY protocol and answers with the client that it names
)

func startNginx(t *testing.T, host *topo.Host) webServer {
	t.Helper()
	need.Program(t, "nginx")
	dir := host.DirOf("nobody")
	config := host.WriteFile("nginx.conf", fmt.Sprintf(`
		daemon off;
		pid %[1]s/nginx.pid;
		error_log stderr;
		events {}
		http {
			access_log %[1]s/access.log;
			client_body_temp_path %[1]s/body;
			proxy_temp_path %[1]s/proxy;
			fastcgi_temp_path %[1]s/fastcgi;
			uwsgi_temp_path %[1]s/uwsgi;
			scgi_temp_path %[1]s/scgi;
			sendfile on;
			server {
				listen %[2]d;
				listen [::]:%[2]d;
				root %[1]s;
			}
			server {
				listen %[3]d proxy_protocol;
				location / { return 200 "$proxy_protocol_addr $proxy_protocol_port\n"; }
			}
		}`, dir, webPort, proxyPort))
	host.Start(host.Command("nginx", "-p", dir, "-e", "stderr", "-c", config).As("nobody"))
	await.Listening(t, host, "tcp", webPort)
	return webServer{host, dir}
}

// put makes a file of random bytes and returns its SHA-256.
func (s webServer) put(t *testing.T, name string, size int64) string {
	t.Helper()
	return writeRandom(t, filepath.Join(s.dir, name), size)
}

// writeRandom makes a file of random bytes, readable by all, and returns its SHA-256.
func writeRandom(t *testing.T, path string, size int64) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, sum), rand.Reader, size); err != nil {
		t.Fatal(err)
	}
	if err := f.Chmod(0o644); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// fileSum is the SHA-256 of a file.
func fileSum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// curl is curl as scripts use it: quiet but for errors, failing where the server does.
func (c client) curl(args ...string) *topo.Cmd {
	return c.host.Command("curl", append([]string{"--silent", "--show-error", "--fail"}, args...)...)
}

// url is a page behind the entry portal's port.
func (c client) url(port uint16, page string) string {
	return "http://" + hostPort(c.entry, port) + "/" + page
}

func TestHTTP(t *testing.T) {
	need.Program(t, "curl")
	w := newWorld(t)
	nginx := startNginx(t, w.plc)
	const big = 1 << 30
	bigSum := nginx.put(t, "big", big)
	nginx.put(t, "small", 1000)
	w.allow(t, w.offer("web", "tcp", 8080, endpoint("tcp", w.plc.Addr(), webPort))...)

	w.each(t, func(t *testing.T, c client) {
		t.Run("a file of 1 GiB", func(t *testing.T) {
			sum := sha256.New()
			cmd := c.curl(c.url(8080, "big"))
			cmd.Stdout = sum
			await.Success(t, cmd)
			if got := hex.EncodeToString(sum.Sum(nil)); got != bigSum {
				t.Errorf("SHA-256 %s, want %s", got, bigSum)
			}
		})
		t.Run("a part of it", func(t *testing.T) {
			cmd := c.curl("--range", "1000000000-1000999999", c.url(8080, "big"))
			want := make([]byte, 1_000_000)
			f, err := os.Open(filepath.Join(nginx.dir, "big"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.ReadAt(want, 1_000_000_000); err != nil {
				t.Fatal(err)
			}
			if got := await.Success(t, cmd); got != string(want) {
				t.Errorf("got %d bytes, not the %d that were asked for", len(got), len(want))
			}
		})
		t.Run("many small ones over connections of their own", func(t *testing.T) {
			const requests = 500
			cmd := c.curl("--parallel", "--parallel-immediate", "--parallel-max", "20",
				"--header", "Connection: close", "--output", "/dev/null", "--write-out", `%{http_code} %{size_download} %{num_connects}\n`,
				c.url(8080, fmt.Sprintf("small?[1-%d]", requests)))
			if got, want := await.Success(t, cmd), strings.Repeat("200 1000 1\n", requests); got != want {
				t.Errorf("got %d answers that are not all like 200 1000 1:\n%s", strings.Count(got, "\n"), got)
			}
		})
		t.Run("one that the client gives up", func(t *testing.T) {
			// curl reads 1 MB and closes its socket with bytes unread: the server must be told, or it would wait for ever.
			r := await.Exit(t, c.curl("--max-filesize", "1000000", c.url(8080, "big")))
			if r.Status == 0 {
				t.Error("curl took a file above its limit, so that the test shows nothing")
			}
			cmd := c.host.Command("sh", "-c", "curl --silent "+c.url(8080, "big")+" | head --bytes 1000000 | wc --bytes")
			if got := strings.TrimSpace(await.Success(t, cmd)); got != "1000000" {
				t.Errorf("got %s bytes", got)
			}
			await.Until(t, "without an open stream", func() error {
				for _, tunnel := range w.laptop.Status().Tunnels {
					if tunnel.Streams != 0 {
						return fmt.Errorf("a tunnel has %d", tunnel.Streams)
					}
				}
				open := await.Success(t, w.plc.Command("ss", "--no-header", "--tcp", "--numeric", "state", "established"))
				if strings.Contains(open, fmt.Sprint(":", webPort)) {
					return fmt.Errorf("nginx has\n%s", open)
				}
				return nil
			})
		})
	})
}

func TestServerSeesTheClientByThePROXYProtocol(t *testing.T) {
	need.Program(t, "curl")
	w := newWorld(t)
	startNginx(t, w.plc)
	var forwards []forward
	for version := uint16(1); version <= 2; version++ {
		for _, f := range w.offer(fmt.Sprintf("proxy-%d", version), "tcp", 8080+version, endpoint("tcp", w.plc.Addr(), proxyPort)) {
			f.more = fmt.Sprintf("proxy_protocol = %d\n", version)
			forwards = append(forwards, f)
		}
	}
	w.allow(t, forwards...)
	w.each(t, func(t *testing.T, c client) {
		for version := uint16(1); version <= 2; version++ {
			cmd := c.curl("--write-out", `%{local_ip} %{local_port}\n`, c.url(8080+version, ""))
			seen, itself, _ := strings.Cut(await.Success(t, cmd), "\n")
			if itself = strings.TrimSpace(itself); seen != itself {
				t.Errorf("version %d: nginx saw the client %q, which is %q", version, seen, itself)
			}
		}
	})
}

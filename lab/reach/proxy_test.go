package reach

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/topo"
)

// squid starts Squid as the proxy, which wants proof if any lines are about it, and connects to port 443 alone, as it
// does where it comes from. It returns its address.
func (w *world) squid(proof ...string) string {
	w.t.Helper()
	dir := w.proxy.DirOf(daemon.User)
	allow := "http_access allow all"
	if len(proof) > 0 {
		allow = "acl known proxy_auth REQUIRED\nhttp_access allow known"
	}
	config := w.proxy.WriteFile("squid.conf", strings.Join(proof, "\n")+fmt.Sprintf(`
acl tls port 443
http_access deny !tls
%[1]s
http_access deny all
http_port 3128
visible_hostname proxy
pid_filename none
cache deny all
cache_log %[2]s/cache.log
access_log stdio:%[2]s/access.log
coredump_dir %[2]s
shutdown_lifetime 0 seconds
`, allow, dir))
	p := w.proxy.Start(w.proxy.Command("squid", "-N", "-d", "1", "-f", config).As(daemon.User))
	p.WaitLog("Accepting HTTP Socket connections")
	return w.proxy.Addr().String() + ":3128"
}

// secretFile writes a file for Squid or the portal's user alone.
func (w *world) secretFile(host *topo.Host, name, text string) string {
	w.t.Helper()
	file := filepath.Join(host.DirOf(daemon.User), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.own(host, file)
	return file
}

// own gives a file to the daemons' user.
func (w *world) own(host *topo.Host, file string) {
	w.t.Helper()
	host.Run("chown", daemon.User, file)
}

// TestProxy: nothing passes but to a proxy, which alone can look up the server's name. A portal joins and works through it,
// and asks no name server. Wrong passwords and what a proxy does not connect to are named; no password is shown.
func TestProxy(t *testing.T) {
	need.Program(t, "squid", "danted", "openssl")
	hashed := func(t *testing.T, kind string) string {
		out, err := topo.Here("openssl", "passwd", kind, password).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	for _, c := range []struct {
		name, scheme string
		start        func(*testing.T, *world) string
		proof        bool
	}{
		{"squid", "http", func(_ *testing.T, w *world) string { return w.squid() }, false},
		{"squid with Basic", "http", func(t *testing.T, w *world) string {
			users := w.secretFile(w.proxy, "users", user+":"+hashed(t, "-apr1")+"\n")
			return w.squid("auth_param basic program /usr/lib/squid/basic_ncsa_auth " + users)
		}, true},
		{"squid with Digest", "http", func(_ *testing.T, w *world) string {
			users := w.secretFile(w.proxy, "users", user+":"+password+"\n")
			return w.squid("auth_param digest program /usr/lib/squid/digest_file_auth "+users, "auth_param digest realm the hotel",
				"auth_param digest nonce_max_count 2")
		}, true},
		{"dante", "socks5", func(t *testing.T, w *world) string { return w.dante(hashed(t, "-6")) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 443, daemon.Set("servers", []string{serverName + ":443"}))
			proxy := c.scheme + "://" + c.start(t, w)
			w.laptop.ShowFile("/etc/resolv.conf", fmt.Sprintf("nameserver %v\n", w.proxy.Addr())) // which is not let out
			w.hotel.SetRules(topo.BlockUDP, topo.BlockTCPTo(w.Server.Host().Addr(), w.relay.Host().Addr()))
			args := []string{"--proxy", proxy}
			if c.proof {
				args = []string{"--proxy", strings.Replace(proxy, "://", "://"+user+"@", 1), "--proxy-password-file", w.secretFile(w.laptop, "password", password+"\n")}
			}
			laptop := w.Join(w.laptop, daemon.JoinArgs(args...), daemon.Set("log_level", "debug"))
			w.carries(laptop, "relay-tls")
			if text := laptop.Run("status"); !strings.Contains(text, proxy+", through which") {
				t.Errorf("status does not name the proxy %s:\n%s", proxy, text)
			}
			wants(t, laptop, "ok proxy "+proxy+": it connects to", "ok server "+serverName+":443: server, proven by its certificate")
			if n := w.dropped(); n > 0 {
				t.Errorf("%d packets were for others than the proxy", n)
			}
			if !c.proof {
				return
			}
			laptop.Stop()
			if strings.Contains(laptop.Log(), "hush") {
				t.Error("the log has the password")
			}
			w.secretFile(w.laptop, "password", "another\n")
			laptop.Launch()
			line := laptop.WaitLog("it refuses the user and password")
			if !strings.Contains(line, proxy) {
				t.Errorf("the log does not name the proxy: %s", line)
			}
			wants(t, laptop, "failed proxy "+proxy+": proxy "+proxy+": it refuses the user and password", "proxy_password_file")
			if text := strings.Join(strings.Fields(laptop.Run("status")), " "); !strings.Contains(text, "it refuses the user and password") {
				t.Errorf("status does not say why there is no server:\n%s", text)
			}
		})
	}
}

// wants fails the test for what doctor does not say, and if it asks for ports that a proxy does without.
func wants(t *testing.T, p *daemon.Portal, want ...string) {
	t.Helper()
	if text := says(t, p, want...); strings.Contains(text, "Please let out") {
		t.Errorf("doctor asks for what no firewall can let out past a proxy: %s", text)
	}
}

// says returns what doctor says, and fails the test for what it does not say.
func says(t *testing.T, p *daemon.Portal, want ...string) (squeezed string) {
	t.Helper()
	out, _ := p.Command("doctor", "--wide").CombinedOutput() // it fails where something does
	squeezed = strings.Join(strings.Fields(string(out)), " ")
	for _, w := range want {
		if !strings.Contains(squeezed, w) {
			t.Errorf("doctor does not say %q:\n%s", w, out)
		}
	}
	return squeezed
}

// TestProxyThatDeclines: what it says is quoted.
func TestProxyThatDeclines(t *testing.T) {
	need.Program(t, "squid")
	w := newWorld(t, 443)
	proxy := "http://" + w.squid()
	w.hotel.SetRules(topo.BlockUDP, topo.BlockTCPTo(w.Server.Host().Addr(), w.relay.Host().Addr()))
	laptop := w.Portal(w.laptop, daemon.Set("servers", []string{serverName + ":80", serverName + ":443"}), daemon.Set("proxy", proxy))
	laptop.WaitLog(fmt.Sprintf(`proxy %s: it does not connect to %s:80: it says \"HTTP/1.1 403 Forbidden\"`, proxy, serverName))
}

// dante starts Dante as the proxy, which wants a user and password, and returns its address.
func (w *world) dante(hash string) string {
	w.t.Helper()
	w.proxy.ShowFile("/etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"+user+":x:4242:4242::/:/bin/false\n")
	w.proxy.ShowFile("/etc/shadow", user+":"+hash+":19000:0:99999:7:::\n")
	config := w.proxy.WriteFile("danted.conf", fmt.Sprintf(`logoutput: stderr
internal: %[1]v port = 1080
external: %[1]v
clientmethod: none
socksmethod: username
user.privileged: root
user.unprivileged: nobody
client pass {
  from: 0/0 to: 0/0
}
socks pass {
  from: 0/0 to: 0/0 port = 443
  command: connect
  protocol: tcp
}
`, w.proxy.Addr()))
	p := w.proxy.Start(w.proxy.Command("danted", "-f", config, "-p", filepath.Join(w.proxy.Dir(), "danted.pid")))
	p.WaitLog("running")
	return w.proxy.Addr().String() + ":1080"
}

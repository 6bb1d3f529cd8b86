package proxy_test

import (
	"io"
	"net"
	"testing"

	"github.com/netport/netport/proto/proxy"
)

// script plays a SOCKS5 proxy: it reads as many bytes as each step wants, fails the test
// unless they are these, and answers. At the end it connects to an echo.
func script(t *testing.T, steps ...[2]string) string {
	to := echo(t)
	return serve(t, func(conn net.Conn) {
		for _, s := range steps {
			got := make([]byte, len(s[0]))
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != s[0] {
				t.Errorf("the proxy got %q, not %q: %v", got, s[0], err)
				return
			}
			io.WriteString(conn, s[1])
		}
		if last := steps[len(steps)-1][1]; len(last) > 2 && last[1] == 0 {
			splice(conn, conn, to, "")
		}
	})
}

const socksRequest = "\x05\x01\x00\x03\x0eserver.invalid\x01\xbb"

func TestSOCKS(t *testing.T) {
	for name, bound := range map[string]string{"IPv4": "\x01\x7f\x00\x00\x01\x00\x01", "IPv6": "\x04" + string(make([]byte, 18)), "name": "\x03\x02ab\x00\x01"} {
		t.Run(name, func(t *testing.T) {
			pass(t, settings(t, "socks5://"+script(t, [2]string{"\x05\x01\x00", "\x05\x00"}, [2]string{socksRequest, "\x05\x00\x00" + bound}), ""))
		})
	}
	t.Run("password", func(t *testing.T) {
		address := script(t, [2]string{"\x05\x02\x00\x02", "\x05\x02"}, [2]string{"\x01\x03ann\x06secret", "\x01\x00"}, [2]string{socksRequest, "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"})
		pass(t, settings(t, "socks5://ann:secret@"+address, ""))
	})
}

func TestWhatASOCKSProxyRefuses(t *testing.T) {
	hello := "\x05\x02\x00\x02"
	for _, c := range []struct {
		name  string
		steps [][2]string
		fault proxy.Fault
		words string
	}{
		{"proof of another kind", [][2]string{{hello, "\x05\xff"}}, proxy.Unauthorized, "not known here"},
		{"wrong password", [][2]string{{hello, "\x05\x02"}, {"\x01\x03ann\x06secret", "\x01\x01"}}, proxy.Unauthorized, "refuses the user"},
		{"rules", [][2]string{{hello, "\x05\x00"}, {socksRequest, "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"}}, proxy.Declined, `"not allowed by its rules" (2)`},
		{"unknown reply", [][2]string{{hello, "\x05\x00"}, {socksRequest, "\x05\x63\x00\x01\x00\x00\x00\x00\x00\x00"}}, proxy.Declined, "99"},
		{"unknown address", [][2]string{{hello, "\x05\x00"}, {socksRequest, "\x05\x00\x00\x09"}}, proxy.Unreached, "kind 9"},
		{"HTTP", [][2]string{{hello, "HTTP/1.1 400 Bad Request\r\n\r\n"}}, proxy.Unreached, "no SOCKS5 proxy"},
		{"cut", [][2]string{{hello, "\x05"}}, proxy.Unreached, "did not answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, settings(t, "socks5://ann:secret@"+script(t, c.steps...), ""), c.fault, c.words)
		})
	}
}

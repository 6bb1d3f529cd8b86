package cli

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

// B93: an address that the relay cannot listen on, or that is none, is said in one line, with what to do about it.
func TestAddressesThatCannotBeListenedOn(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for config, want := range map[string]string{
		"addresses = [\"192.0.2.99\"]\nshared_udp_port = 34780":                      `192.0.2.99:34780: cannot assign requested address; name an address of this machine in "addresses"`,
		fmt.Sprintf("addresses = [\"127.0.0.1\"]\nshared_tcp_port = %d", port):       "address already in use; another program has it: choose another port in the configuration",
		fmt.Sprintf("addresses = [\"127.0.0.1\"]\nmetrics = \"127.0.0.1:%d\"", port): "address already in use; another program has it: stop that, or choose another port in \"metrics\"",
		"addresses = [\"fe80::1%eth0\"]":                                             ":2:14: \"fe80::1%eth0\" is not an IP address",
		"addresses = [\"127.0.0.1\"]\nmetrics = \"::1:9401\"":                        ":3:11: \"::1:9401\" is no address for metrics: write",
		"addresses = [\"127.0.0.1\"]\nmetrics = \"192.0.2.1:9401\"":                  ":3:11: metrics are not served at 192.0.2.1:9401, where others can reach it: write",
		"addresses = [\"127.0.0.1\"]\nshared_tcp_port = 65536":                       ":3:19: port 65536: 0 to 65535 are possible",
		"addresses = [\"127.0.0.1\"]\nshared_udp_port = -1":                          ":3:19: port -1: 0 to 65535 are possible",
		"addresses = [\"127.0.0.1\"]\nlast_port = 0":                                 ":3:13: ",
	} {
		file := install(t)
		if err := os.WriteFile(file, []byte("servers = [\"127.0.0.1:1\"]\n"+config+"\nmode = \"userspace\"\nallow_loopback = true\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		code, _, errs := call(t.Context(), "run", "--config", file)
		if code != 1 || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, want 1 and %q\n%s", config, code, want, errs)
		}
	}
}

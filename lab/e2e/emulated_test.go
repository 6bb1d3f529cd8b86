package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/meter"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/topo"
)

// processors are those of small devices, with the programs that play them.
var processors = []struct {
	name     string // of GOARCH
	settings []string
	emulator string
}{
	{"arm", nil, "qemu-arm-static"},
	{"mipsle", []string{"GOMIPS=softfloat"}, "qemu-mipsel-static"}, // home routers
}

// TestPortalOnASmallDevicesProcessor: a portal that is built for such a processor says its version, joins, and carries a
// stream both ways between an application beside it and one beside a portal of this machine's processor, with server
// and relay of this one as well. Its whole program runs, by emulation of its instructions.
func TestPortalOnASmallDevicesProcessor(t *testing.T) {
	t.Parallel()
	for _, p := range processors {
		t.Run(p.name, func(t *testing.T) {
			need.Program(t, "go", p.emulator)
			program := buildPortal(t, p.name, p.settings)
			l := topo.New(t)
			home, office := commonHome.build(l, "home"), commonOffice.build(l, "office")
			n := daemon.New(t, l.Public("server"))
			n.Relay(l.Public("relay"))
			factory := n.Portal(office.Host("factory"))
			host := home.Host("device")
			emulated := installed(t, host, program)
			version := await.Success(t, host.Command(p.emulator, emulated, "--version").As(daemon.User))
			if !strings.HasPrefix(version, "netport-portal version ") {
				t.Errorf("its --version says %q", version)
			}
			device := n.JoinWith(host, func([]byte) []byte {
				return fmt.Appendf(nil, "#!/bin/sh\nexec %s %s \"$@\"\n", p.emulator, emulated)
			})

			const in, out = 9000, 9001
			n.Apply(fmt.Sprintf("[[forward]]\nname = \"bytes\"\nfrom = \"device tcp://127.0.0.1:%d\"\nto = \"factory tcp://127.0.0.1:%d\"\n", in, out))
			device.WaitUp("bytes")
			service := factory.Host().Listen(out)
			conn, err := host.DialContext(t.Context(), "tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), in))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			far := await.Accept(t, service)
			await.Limit(t, conn)
			stream := meter.Stream{Bytes: 1 << 20}
			atFar, atDevice := stream.Exchange(t.Context(), conn, far)
			for who, got := range map[string]meter.StreamReport{"factory": atFar, "device": atDevice} {
				if err := got.Check(); err != nil || got.Received != stream.Bytes {
					t.Errorf("at the %s: %v (%v)", who, got, err)
				}
			}
		})
	}
}

// buildPortal builds the portal for a processor, as it is shipped, and returns the file.
func buildPortal(t *testing.T, arch string, settings []string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "portal")
	cmd := topo.Here("go", "build", "-C", "../../portal", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", file, ".")
	cmd.Limit = daemon.BuildTime
	cmd.Env = append(os.Environ(), append(settings, "CGO_ENABLED=0", "GOWORK=off", "GOOS=linux", "GOARCH="+arch)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the portal for %s: %v\n%s", arch, err, out)
	}
	return file
}

// installed copies a program to where everybody on a host can run it.
func installed(t *testing.T, host *topo.Host, program string) string {
	t.Helper()
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	file := host.WriteFile("emulated", string(content))
	if err := os.Chmod(file, 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/topo"
)

const sshPort = 2222

// sshServer is an sshd with one account, ann, that one key opens.
type sshServer struct {
	home     string // ann's, where every user may read
	key      []byte // private, of the client
	hostKeys string // of the server, as known_hosts wants them
}

func startSSHD(t *testing.T, host *topo.Host) sshServer {
	t.Helper()
	need.Program(t, "ssh", "scp", "sshd", "ssh-keygen")
	dir := host.DirOf("root")
	newKey := func(name string) (file string) {
		file = filepath.Join(dir, name)
		await.Success(t, host.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file))
		return file
	}
	read := func(file string) []byte {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	hostKey, key := newKey("host"), newKey("ann")
	s := sshServer{home: filepath.Join(host.Dir(), "ann"), key: read(key), hostKeys: "* " + string(read(hostKey+".pub"))}
	if err := os.Mkdir(s.home, 0o755); err != nil {
		t.Fatal(err)
	}
	const ann = 4000
	if err := os.Chown(s.home, ann, ann); err != nil {
		t.Fatal(err)
	}
	// Nothing outside of this host knows the account.
	host.ShowFile("/etc/passwd", fmt.Sprintf("root:x:0:0::/root:/bin/sh\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\nann:x:%d:%d::%s:/bin/sh\n", ann, ann, s.home))
	await.Success(t, host.Command("mkdir", "-p", "/run/sshd")) // of the host's own /run
	config := host.WriteFile("sshd_config", fmt.Sprintf(`
Port %d
HostKey %s
AuthorizedKeysFile %s
PidFile none
StrictModes no
PasswordAuthentication no
Subsystem sftp internal-sftp
`, sshPort, hostKey, host.WriteFile("authorized_keys", string(read(key+".pub")))))
	sshd := host.Start(host.Command("/usr/sbin/sshd", "-D", "-e", "-f", config))
	sshd.WaitLog("Server listening on 0.0.0.0")
	return s
}

// sshClient is ssh with its configuration on one machine, run as the portal's user, who may use "netport-portal connect".
type sshClient struct {
	t      *testing.T
	host   *topo.Host
	config string
}

// client makes files for a client. The lines say how it reaches the host "plc".
func (s sshServer) client(t *testing.T, host *topo.Host, name, lines string) sshClient {
	t.Helper()
	key := filepath.Join(host.DirOf("nobody"), name+".key")
	await.Success(t, host.Command("install", "-m", "600", "/dev/null", key).As("nobody"))
	if err := os.WriteFile(key, s.key, 0o600); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
Host plc
%s
User ann
IdentityFile %s
IdentitiesOnly yes
BatchMode yes
StrictHostKeyChecking yes
UserKnownHostsFile %s
GlobalKnownHostsFile none
`, lines, key, host.WriteFile(name+".hosts", s.hostKeys))
	return sshClient{t, host, host.WriteFile(name+".config", config)}
}

func (c sshClient) command(program string, args ...string) *topo.Cmd {
	c.t.Helper()
	cmd := c.host.Command(program, append([]string{"-F", c.config}, args...)...).As("nobody")
	cmd.Env = append(os.Environ(), "SHELL=/bin/sh") // for ProxyCommand; nobody's own refuses
	return cmd
}

// check is what has to work over one way to the server.
func (s sshServer) check(t *testing.T, c sshClient) {
	t.Run("a command with output, errors and a status", func(t *testing.T) {
		r := await.Exit(t, c.command("ssh", "plc", "id -un; echo trouble >&2; exit 7"))
		if want := (await.Result{Stdout: "ann\n", Stderr: "trouble\n", Status: 7}); r != want {
			t.Errorf("got %+v, want %+v", r, want)
		}
	})
	t.Run("input that ends, and output after its end", func(t *testing.T) {
		const size = 5_000_000
		input := bytes.Repeat([]byte("0123456789abcdef\n"), size/17)
		sum := sha256.New()
		cmd := c.command("ssh", "plc", "cat; echo behind")
		cmd.Stdin, cmd.Stdout = bytes.NewReader(input), sum
		await.Success(t, cmd)
		want := sha256.Sum256(append(input, "behind\n"...))
		if got := sum.Sum(nil); !bytes.Equal(got, want[:]) {
			t.Error("what cat gave back is not what it got")
		}
	})
	t.Run("scp of 50 MB there and back", func(t *testing.T) {
		dir := c.host.DirOf("nobody")
		there, here := filepath.Join(dir, "there"), filepath.Join(dir, "here")
		want := writeRandom(t, there, 50_000_000)
		await.Success(t, c.command("scp", "-q", there, "plc:copy"))
		if got := fileSum(t, filepath.Join(s.home, "copy")); got != want {
			t.Errorf("there: SHA-256 %s, want %s", got, want)
		}
		await.Success(t, c.command("scp", "-q", "plc:copy", here))
		if got := fileSum(t, here); got != want {
			t.Errorf("back: SHA-256 %s, want %s", got, want)
		}
	})
	t.Run("a key that the server does not have is noticed", func(t *testing.T) {
		cmd := c.command("ssh", "-o", "UserKnownHostsFile=/dev/null", "plc", "true")
		if r := await.Exit(t, cmd); r.Status != 255 || !strings.Contains(r.Stderr, "Host key verification failed") {
			t.Errorf("got %+v", r)
		}
	})
}

func TestSSH(t *testing.T) {
	w := newWorld(t)
	sshd := startSSHD(t, w.plc)
	target := endpoint("tcp", w.plc.Addr(), sshPort)
	w.allow(t, append(w.offer("ssh", "tcp", 2200, target), forward{name: "ssh-by-hand", from: "stdio:", to: target})...)

	w.each(t, func(t *testing.T, c client) {
		sshd.check(t, sshd.client(t, c.host, "forward", fmt.Sprintf("HostName %s\nPort 2200", c.entry)))
	})
	t.Run("ProxyCommand", func(t *testing.T) {
		connect := w.laptop.Connect("factory", target)
		sshd.check(t, sshd.client(t, w.laptop.Host(), "connect", "ProxyCommand "+strings.Join(connect.Args, " ")))
	})
}

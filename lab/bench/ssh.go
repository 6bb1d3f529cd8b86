package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/topo"
)

const (
	sshName     = "ssh -J -L"
	sshOpenName = "ssh, NAT b open"

	sshPort  = 22
	lentPort = 2222 // of the service's sshd, on the relay's machine
	// From the services' ports to the client's ends of the ssh forwards.
	sshShift, sshOpenShift = 10000, 15000
)

// ssh is OpenSSH with its own defaults: an sshd on the relay's machine as jump host (ssh -J -L), and one on the
// service's. Keys and configurations are in the lab's folders; nothing of the machine's own is touched.
type ssh struct {
	w      *world
	config string // file of the clients
}

// startSSHDs starts both sshds.
func (w *world) startSSHDs() (ssh, error) {
	need.Program(w.t, "sshd", "ssh", "ssh-keygen")
	key := filepath.Join(w.client.Dir(), "key")
	w.client.Run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		return ssh{}, err
	}
	for _, host := range []*topo.Host{w.relay, w.service} {
		startSSHD(host, string(public))
	}
	// Options on the command line would not reach the jump host's ssh; a file does.
	config := w.client.WriteFile("ssh_config", strings.Join([]string{
		"Host *", "User root", "IdentityFile " + key, "IdentitiesOnly yes", "StrictHostKeyChecking no",
		"UserKnownHostsFile /dev/null", "LogLevel ERROR", "ExitOnForwardFailure yes", "",
	}, "\n"))
	return ssh{w: w, config: config}, nil
}

// startSSHD starts an sshd that lets in who has the key.
func startSSHD(host *topo.Host, public string) {
	hostKey := filepath.Join(host.Dir(), "host-key")
	host.Run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", hostKey)
	host.Run("mkdir", "-p", "/run/sshd") // in a /run of its own
	config := host.WriteFile("sshd_config", strings.Join([]string{
		fmt.Sprintf("Port %d", sshPort), "HostKey " + hostKey, "PidFile none", "UsePAM no", "StrictModes no",
		"AuthorizedKeysFile " + host.WriteFile("authorized_keys", public), "PermitRootLogin prohibit-password", "",
	}, "\n"))
	sshd := host.Start(host.Command("/usr/sbin/sshd", "-D", "-e", "-f", config))
	sshd.WaitLog("Server listening")
}

// startSSH makes the way that ssh has between two machines that can only dial out, as Netport has to: the service's
// machine lends its sshd to the relay's (ssh -R), and the client jumps there.
func (w *world) startSSH() (way, error) {
	s, err := w.sshds()
	if err != nil {
		return way{}, err
	}
	lent := fmt.Sprintf("127.0.0.1:%d", lentPort)
	lend := w.service.Start(w.service.Command("ssh", "-F", s.config, "-N",
		"-R", fmt.Sprintf("%s:127.0.0.1:%d", lent, sshPort), w.relay.Addr().String()))
	if err := until("the lent sshd listens", lend.Done(), func() error { return listens(w.relay, lent) }); err != nil {
		return way{}, err
	}
	return s.forward(at(sshName, sshShift), "127.0.0.1", lentPort)
}

// startSSHOpen makes the way that ssh would have if NAT b forwarded a port to the service's sshd: with one encryption
// less between relay and service. It is there for information.
func (w *world) startSSHOpen() (way, error) {
	s, err := w.sshds()
	if err != nil {
		return way{}, err
	}
	w.openNAT(sshPort)
	return s.forward(at(sshOpenName, sshOpenShift), w.natB.Addr().String(), sshPort)
}

// forward starts the client, with the relay's machine as jump host.
func (s ssh) forward(via way, host string, port int) (way, error) {
	args := []string{"-F", s.config, "-N", "-J", s.w.relay.Addr().String(), "-p", fmt.Sprint(port)}
	for _, port := range servicePorts {
		args = append(args, "-L", fmt.Sprintf("%s:127.0.0.1:%d", via.addr(port), port))
	}
	client := s.w.client.Start(s.w.client.Command("ssh", append(args, host)...))
	return via, until("ssh listens", client.Done(), func() error { return listens(s.w.client, via.addr(echoPort)) })
}

// listens reports why an address does not accept connections from the host itself.
func listens(host *topo.Host, addr string) error {
	var conn net.Conn
	var err error
	host.Do(func() { conn, err = net.Dial("tcp", addr) })
	if err != nil {
		return err
	}
	return conn.Close()
}

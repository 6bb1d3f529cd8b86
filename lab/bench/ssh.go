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

const sshName = "ssh -J -L"

const (
	sshPort  = 22
	lentPort = 2222  // of the service's sshd, on the relay's machine
	sshShift = 10000 // from the services' ports to the client's ends of the ssh forwards
)

// startSSH makes the way that OpenSSH has between two machines that can only dial out, with its own defaults: the
// service's machine lends its sshd to the relay's (ssh -R), and the client logs in to that one by the relay's as jump
// host (ssh -J -L). Keys and configurations are in the lab's folder, and nothing of the machine's own is touched.
func (w *world) startSSH() (way, error) {
	need.Program(w.t, "sshd", "ssh", "ssh-keygen")
	key := filepath.Join(w.client.Dir(), "key")
	w.client.Run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		return way{}, err
	}
	startSSHD(w.relay, string(public))
	startSSHD(w.service, string(public))

	// Options on the command line would not reach the jump host's ssh; a file does.
	config := w.client.WriteFile("ssh_config", strings.Join([]string{
		"Host *", "User root", "IdentityFile " + key, "IdentitiesOnly yes", "StrictHostKeyChecking no",
		"UserKnownHostsFile /dev/null", "LogLevel ERROR", "ExitOnForwardFailure yes", "",
	}, "\n"))
	relay := w.relay.Addr().String()
	lend := w.service.Start(w.service.Command("ssh", "-F", config, "-N",
		"-R", fmt.Sprintf("127.0.0.1:%d:127.0.0.1:%d", lentPort, sshPort), relay))
	if err := until("the lent sshd listens", lend.Done(), func() error {
		return listens(w.relay, fmt.Sprintf("127.0.0.1:%d", lentPort))
	}); err != nil {
		return way{}, err
	}
	via := at(sshName, sshShift)
	args := []string{"-F", config, "-N", "-J", relay, "-p", fmt.Sprint(lentPort)}
	for _, port := range servicePorts {
		args = append(args, "-L", fmt.Sprintf("%s:127.0.0.1:%d", via.addr(port), port))
	}
	client := w.client.Start(w.client.Command("ssh", append(args, "127.0.0.1")...))
	return via, until("ssh listens", client.Done(), func() error { return listens(w.client, via.addr(echoPort)) })
}

// startSSHD starts an sshd that lets in who has the key.
func startSSHD(host *topo.Host, public string) {
	dir := host.Dir()
	hostKey := filepath.Join(dir, "host-key")
	host.Run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", hostKey)
	host.Run("mkdir", "-p", "/run/sshd") // in a /run of its own
	config := host.WriteFile("sshd_config", strings.Join([]string{
		fmt.Sprintf("Port %d", sshPort), "HostKey " + hostKey, "PidFile none", "UsePAM no", "StrictModes no",
		"AuthorizedKeysFile " + host.WriteFile("authorized_keys", public), "PermitRootLogin prohibit-password", "",
	}, "\n"))
	sshd := host.Start(host.Command("/usr/sbin/sshd", "-D", "-e", "-f", config))
	sshd.WaitLog("Server listening")
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

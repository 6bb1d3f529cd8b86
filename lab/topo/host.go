package topo

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Host is a machine with one uplink, or with a second, too.
type Host struct {
	*Node
	second Second // zero if there is none
}

// Addrs are all the host's addresses, those of its first uplink first.
func (h *Host) Addrs() []netip.Addr {
	all := []netip.Addr{h.at.addr4, h.at.addr6, h.second.Addr4, h.second.Addr6}
	return slices.DeleteFunc(all, func(a netip.Addr) bool { return !a.IsValid() })
}

// dialTimeout bounds Dial, so that a test of a network that drops everything ends.
const dialTimeout = 10 * time.Second

// Listen opens a listening TCP socket on all the host's addresses; port 0 picks a free one. It is closed with the test.
func (n *Node) Listen(port uint16) net.Listener {
	n.t.Helper()
	var ln net.Listener
	var err error
	n.Do(func() { ln, err = net.Listen("tcp", ":"+strconv.Itoa(int(port))) })
	if err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
	n.t.Cleanup(func() { ln.Close() })
	return ln
}

// ListenUDP opens a UDP socket on all the host's addresses; port 0 picks a free one. It is closed with the test.
func (n *Node) ListenUDP(port uint16) *net.UDPConn {
	n.t.Helper()
	var conn *net.UDPConn
	var err error
	n.Do(func() { conn, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)}) })
	if err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
	n.t.Cleanup(func() { conn.Close() })
	return conn
}

// Dial opens a TCP connection or a connected UDP socket from the host and ends the test if it cannot. It is closed
// with the test.
func (n *Node) Dial(network string, to netip.AddrPort) net.Conn {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), dialTimeout)
	defer cancel()
	conn, err := n.DialContext(ctx, network, to)
	if err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
	n.t.Cleanup(func() { conn.Close() })
	return conn
}

// DialContext is Dial for the cases that may fail: it returns the error, and the caller closes the connection. It may be
// called from any goroutine.
func (n *Node) DialContext(ctx context.Context, network string, to netip.AddrPort) (conn net.Conn, err error) {
	// With an address, not a name, the dialer opens its one socket on this goroutine.
	n.Do(func() { conn, err = new(net.Dialer).DialContext(ctx, network, to.String()) })
	return conn, err
}

// Dir returns the host's directory for files, with a short path (Unix sockets lie in it). It is owned by the user that
// runs the test, is readable by all, and is removed with the test.
func (n *Node) Dir() string {
	n.t.Helper()
	dir := filepath.Join(n.lab.dir, n.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
	return dir
}

// DirOf returns a directory in Dir that belongs to the named user and that no other can read.
func (n *Node) DirOf(name string) string {
	n.t.Helper()
	dir := filepath.Join(n.Dir(), name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
	uid, gid := n.lookupUser(name)
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
	return dir
}

// WriteFile writes a file into Dir, readable by all, and returns its path.
func (n *Node) WriteFile(name, content string) string {
	n.t.Helper()
	path := filepath.Join(n.Dir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
	return path
}

// ShowFile makes the programs of the host see content at path, an existing file such as /etc/resolv.conf. Nothing else on
// the machine sees it. The host's programs see an empty /run, too.
func (n *Node) ShowFile(path, content string) {
	n.t.Helper()
	source := n.WriteFile("shown-"+filepath.Base(path), content)
	if err := n.space.Bind(source, path); err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
}

func (n *Node) lookupUser(name string) (uid, gid uint32) {
	n.t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
	ids := make([]uint32, 2)
	for i, text := range []string{u.Uid, u.Gid} {
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			n.t.Fatalf("%s: id of user %s: %v", n.name, name, err)
		}
		ids[i] = uint32(id)
	}
	return ids[0], ids[1]
}

package main

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"github.com/netport/netport/lab/coturn"
	"github.com/netport/netport/lab/topo"
)

const (
	turnName = "coturn"
	channel  = 0x4000 // the lowest channel number (RFC 8656 section 12)
)

// startTURN starts coturn on a machine.
func startTURN(t testing.TB, host *topo.Host) (netip.AddrPort, *topo.Process) {
	return netip.AddrPortFrom(host.Addr(), coturn.Port), coturn.Start(t, host, host.Addr())
}

// startTURNFlows makes flows over coturn on the relay's machine. The client allocates an address for each flow and binds
// a channel to the service's socket. The service has no allocation: it gets plain datagrams, which spares coturn half of
// the framing.
func (w *world) startTURNFlows() (flows, error) {
	turn, _ := startTURN(w.t, w.relay)
	f := flows{name: turnName, service: w.service.ListenUDP(0)}
	peer, err := mappedAddress(f.service, turn)
	if err != nil {
		return flows{}, err
	}
	for range maxFlows {
		conn := w.client.ListenUDP(0)
		relayed, err := allocate(conn, turn)
		if err != nil {
			return flows{}, err
		}
		header, err := bindChannel(conn, turn, peer)
		if err != nil {
			return flows{}, err
		}
		// The service's NAT lets in what was sent to before.
		if _, err := f.service.WriteToUDPAddrPort([]byte("open"), relayed); err != nil {
			return flows{}, err
		}
		f.client = append(f.client, flow{conn: conn, to: turn, header: header})
	}
	return f, nil
}

// allocate makes an allocation and returns its address.
func allocate(conn *net.UDPConn, turn netip.AddrPort) (netip.AddrPort, error) {
	udp := stun.RawAttribute{Type: stun.AttrRequestedTransport, Value: []byte{17, 0, 0, 0}}
	answer, err := request(conn, turn, stun.NewType(stun.MethodAllocate, stun.ClassRequest), udp)
	if err != nil {
		return netip.AddrPort{}, err
	}
	var relayed stun.XORMappedAddress
	err = relayed.GetFromAs(answer, stun.AttrXORRelayedAddress)
	return addrPort(relayed), err
}

// bindChannel makes a channel to the peer and returns what is put before a payload of packetLen bytes.
func bindChannel(conn *net.UDPConn, turn, peer netip.AddrPort) (header []byte, err error) {
	number := stun.RawAttribute{Type: stun.AttrChannelNumber, Value: []byte{channel >> 8, channel & 0xff, 0, 0}}
	_, err = request(conn, turn, stun.NewType(stun.MethodChannelBind, stun.ClassRequest), number, peerAddress(peer))
	return []byte{channel >> 8, channel & 0xff, packetLen >> 8, packetLen & 0xff}, err
}

// peerAddress is the attribute XOR-PEER-ADDRESS.
type peerAddress netip.AddrPort

// AddTo implements stun.Setter.
func (p peerAddress) AddTo(m *stun.Message) error {
	addr := netip.AddrPort(p)
	xor := stun.XORMappedAddress{IP: addr.Addr().AsSlice(), Port: int(addr.Port())}
	return xor.AddToAs(m, stun.AttrXORPeerAddress)
}

// mappedAddress asks coturn what address the socket has there.
func mappedAddress(conn *net.UDPConn, turn netip.AddrPort) (netip.AddrPort, error) {
	answer, err := request(conn, turn, stun.BindingRequest)
	if err != nil {
		return netip.AddrPort{}, err
	}
	var mapped stun.XORMappedAddress
	if err := mapped.GetFrom(answer); err != nil {
		return netip.AddrPort{}, err
	}
	return addrPort(mapped), nil
}

func addrPort(x stun.XORMappedAddress) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(x.IP)
	return netip.AddrPortFrom(addr.Unmap(), uint16(x.Port))
}

// repeatAfter is how long a request waits for its answer before it is sent again.
const repeatAfter = 250 * time.Millisecond

// request sends a request, again if need be, and returns the success response to it.
func request(conn *net.UDPConn, to netip.AddrPort, kind stun.MessageType, setters ...stun.Setter) (*stun.Message, error) {
	m, err := stun.Build(append([]stun.Setter{stun.TransactionID, kind}, setters...)...)
	if err != nil {
		return nil, err
	}
	defer conn.SetReadDeadline(time.Time{})
	buffer := make([]byte, 1500)
	for late := time.Now().Add(patience); time.Now().Before(late); {
		if _, err := conn.WriteToUDPAddrPort(m.Raw, to); err != nil {
			return nil, fmt.Errorf("%v: %w", kind, err)
		}
		conn.SetReadDeadline(time.Now().Add(repeatAfter))
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				break // late, or refused because the server has just started
			}
			answer := &stun.Message{Raw: buffer[:n]}
			if answer.Decode() != nil || answer.TransactionID != m.TransactionID {
				continue
			}
			if answer.Type.Class != stun.ClassSuccessResponse {
				var code stun.ErrorCodeAttribute
				code.GetFrom(answer) // without one it says 0
				return nil, fmt.Errorf("%v was answered by %v: %v", kind, answer.Type, code)
			}
			return answer, nil
		}
	}
	return nil, fmt.Errorf("%v: no answer from %v", kind, to)
}

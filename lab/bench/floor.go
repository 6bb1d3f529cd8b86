package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/proto/identity"
)

const (
	floorName  = "bare crypto/tls"
	floorPort  = 4433
	floorReady = "floor is ready"
)

// runFloor plays the least that a server can be whose peers prove themselves by X.509: crypto/tls and a goroutine for
// each connection, which reads. It has the credentials in a folder, and listens at an address.
func runFloor(args []string) error {
	if len(args) != 2 {
		return errors.New("want a folder of credentials and an address")
	}
	credentials, err := daemon.LoadCredentials(args[0], identity.Portal)
	if err != nil {
		return err
	}
	ln, err := tls.Listen("tcp", args[1], credentials.ServerTLS(identity.ProtocolControl, anyPortal))
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, floorReady)
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		go untilGone(conn)
	}
}

var anyPortal = identity.Expect(identity.Portal, "")

// connectFloor connects to such a server.
func connectFloor(ctx context.Context, credentials *identity.Credentials, address string) (stay func(context.Context) error, err error) {
	dialer := tls.Dialer{Config: credentials.ClientTLS(identity.ProtocolControl, anyPortal)}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		return untilGone(conn)
	}, nil
}

// untilGone reads what nobody sends.
func untilGone(conn net.Conn) error {
	defer conn.Close()
	b := make([]byte, 1)
	for {
		if _, err := conn.Read(b); err != nil {
			return err
		}
	}
}

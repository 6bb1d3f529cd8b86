package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// look reads the addresses and the default route.
func look() (state, error) {
	all, err := addresses()
	if err != nil {
		return state{}, err
	}
	route, err := defaultRoute()
	if err != nil {
		return state{}, err
	}
	return stateOf(all, route), nil
}

// defaultRoute returns the default route of the main table that the kernel
// prefers, of IPv4 if there is one. (An IPv6 route may come and go with the
// announcements of a router, in one and the same network.)
func defaultRoute() (route, error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		table, err := syscall.NetlinkRIB(unix.RTM_GETROUTE, family)
		if err != nil {
			return route{}, fmt.Errorf("read the routes: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(table)
		if err != nil {
			return route{}, fmt.Errorf("read the routes: %w", err)
		}
		var best route
		var metric uint32
		for _, m := range messages {
			r, priority, ok := parseDefault(m)
			if ok && (best == route{} || priority < metric) {
				best, metric = r, priority
			}
		}
		if best != (route{}) {
			return best, nil
		}
	}
	return route{}, nil
}

// parseDefault reads a route if it is a default one of the main table that
// leads to an interface.
func parseDefault(m syscall.NetlinkMessage) (r route, priority uint32, ok bool) {
	// struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type.
	if m.Header.Type != unix.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg ||
		m.Data[1] != 0 || m.Data[4] != unix.RT_TABLE_MAIN || m.Data[7] != unix.RTN_UNICAST {
		return route{}, 0, false
	}
	attributes, err := syscall.ParseNetlinkRouteAttr(&m)
	if err != nil {
		return route{}, 0, false
	}
	for _, a := range attributes {
		switch a.Attr.Type {
		case unix.RTA_GATEWAY:
			r.gateway, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_OIF:
			if len(a.Value) == 4 {
				r.on = int(binary.NativeEndian.Uint32(a.Value))
			}
		case unix.RTA_PRIORITY:
			if len(a.Value) == 4 {
				priority = binary.NativeEndian.Uint32(a.Value)
			}
		}
	}
	return r, priority, r.on != 0
}

const (
	groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE
	// pause is how long listenSystem waits before it opens a socket anew.
	pause = 5 * time.Second
)

// listenSystem gives a sign whenever the kernel tells of links, addresses or routes.
// What it tells is not read: the machine is looked at instead, so that a message
// that was lost changes nothing.
func (w *Watch) listenSystem(ctx context.Context, signs chan<- struct{}) {
	for {
		err := listenNetlink(ctx, signs)
		if ctx.Err() != nil {
			return
		}
		w.log.Warn("the kernel does not tell of changes of the network; asking every few seconds", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		sign(signs)
	}
}

func sign(signs chan<- struct{}) {
	select {
	case signs <- struct{}{}:
	default:
	}
}

func listenNetlink(ctx context.Context, signs chan<- struct{}) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	socket := os.NewFile(uintptr(fd), "netlink")
	defer socket.Close()
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	stop := context.AfterFunc(ctx, func() { socket.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	sign(signs) // what happened while nobody listened
	buf := make([]byte, 64<<10)
	for {
		_, err := socket.Read(buf)
		// ENOBUFS: more has happened than the socket could hold. That is a sign, too.
		if err != nil && !isOverflow(err) {
			return err
		}
		sign(signs)
	}
}

func isOverflow(err error) bool { return errors.Is(err, unix.ENOBUFS) }

//go:build linux

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// own numbers the relay's addresses, as flows name them. An address that the
// relay loses keeps its number while flows have it.
type own struct {
	list  [1 + maxOwn]netip.Addr // by number; 0 is never used
	index map[netip.Addr]uint8   // of those that are the relay's now
	full  bool                   // and it has been said
}

// isOwn reports whether an address of an interface is one that sessions can be
// reached at.
func isOwn(a netip.Addr) bool { return a.IsGlobalUnicast() }

// rawAddr returns an address as the maps hold it.
func rawAddr(a netip.Addr) (raw [4]uint32) {
	b := a.As16()
	for i := range raw {
		raw[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return raw
}

// addrOf is the reverse of rawAddr.
func addrOf(raw [4]uint32) netip.Addr {
	var b [16]byte
	for i := range raw {
		binary.NativeEndian.PutUint32(b[4*i:], raw[i])
	}
	return netip.AddrFrom16(b).Unmap()
}

// adoptOwn reads the numbers that flows of an adopted table have.
func (k *Kernel) adoptOwn() error {
	k.own.index = make(map[netip.Addr]uint8)
	for i := 1; i < len(k.own.list); i++ {
		var entry relayAddress
		if err := k.maps.OwnList.Lookup(uint32(i), &entry); err != nil {
			return fmt.Errorf("read the relay's addresses: %w", err)
		}
		if entry.Addr == [4]uint32{} {
			continue
		}
		a := addrOf(entry.Addr)
		k.own.list[i] = a
		var number uint8
		if err := k.maps.OwnIndex.Lookup(entry, &number); err == nil && int(number) == i {
			k.own.index[a] = number
		}
	}
	return nil
}

// setOwn tells the program which addresses are the relay's.
func (k *Kernel) setOwn(devices []device) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	want := make(map[netip.Addr]bool)
	for _, a := range k.options.Addresses {
		want[a] = true
	}
	if len(want) == 0 {
		for _, d := range devices {
			for _, a := range d.addresses {
				if d.ethernet && isOwn(a) {
					want[a] = true
				}
			}
		}
	}
	for a := range k.own.index {
		if !want[a] {
			if err := k.maps.OwnIndex.Delete(relayAddress{Addr: rawAddr(a)}); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("forget address %v: %w", a, err)
			}
			delete(k.own.index, a)
		}
	}
	for a := range want {
		if _, ok := k.own.index[a]; ok {
			continue
		}
		number, err := k.ownNumberLocked(a)
		if err != nil {
			return err
		}
		if number == 0 {
			if !k.own.full {
				k.log.Warn("more addresses than the kernel plane has numbers for: name the relay's in the configuration", "max", maxOwn, "left out", a)
			}
			k.own.full = true
			return nil
		}
		entry := relayAddress{Addr: rawAddr(a)}
		if err := k.maps.OwnList.Put(uint32(number), entry); err != nil {
			return fmt.Errorf("number address %v: %w", a, err)
		}
		if err := k.maps.OwnIndex.Put(entry, number); err != nil {
			return fmt.Errorf("add address %v: %w", a, err)
		}
		k.own.list[number], k.own.index[a] = a, number
	}
	k.own.full = false
	return nil
}

// ownNumberLocked returns a number for an address: the one it had, or one that
// nobody has; 0 if there is none.
func (k *Kernel) ownNumberLocked(a netip.Addr) (uint8, error) {
	free := 0
	for i := len(k.own.list) - 1; i > 0; i-- {
		switch k.own.list[i] {
		case a:
			return uint8(i), nil
		case netip.Addr{}:
			free = i
		}
	}
	if free > 0 {
		return uint8(free), nil
	}
	var used [1 + maxOwn]bool
	for _, number := range k.own.index {
		used[number] = true
	}
	err := k.eachFlow(func(_ []relayFlowKey, flows []relayFlow) bool {
		for _, f := range flows {
			used[f.Own%(1+maxOwn)], used[f.PeerOwn%(1+maxOwn)] = true, true
		}
		return true
	})
	if err != nil {
		return 0, err
	}
	for i := 1; i < len(used); i++ {
		if !used[i] {
			return uint8(i), nil
		}
	}
	return 0, nil
}

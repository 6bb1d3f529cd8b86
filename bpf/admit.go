//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Admit lets an address send TCP to a block of packet ports, named by its first
// port: what it sends there without a flow is reported by Run and never
// forwarded. Nobody else is heard at a packet port. Open begins with nobody
// admitted.
func (k *Kernel) Admit(source netip.Addr, block uint16) error {
	if !source.IsValid() || source.Is4In6() {
		return fmt.Errorf("admit %v: it is no address of a portal", source)
	}
	if block < k.options.PacketFirst || block > k.options.PacketLast {
		return fmt.Errorf("admit %v to block %d: it is not among the packet ports", source, block)
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return fmt.Errorf("admit %v: %w", source, errClosed)
	}
	if err := k.maps.Admitted.Put(relayAdmission{Addr: rawAddr(source), Block: block}, uint8(1)); err != nil {
		return fmt.Errorf("admit %v to block %d: %w", source, block, err)
	}
	return nil
}

// Dismiss takes back an Admit. Flows of the source are not touched. It is no
// error if it was not admitted.
func (k *Kernel) Dismiss(source netip.Addr, block uint16) error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return fmt.Errorf("dismiss %v: %w", source, errClosed)
	}
	err := k.maps.Admitted.Delete(relayAdmission{Addr: rawAddr(source), Block: block})
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("dismiss %v from block %d: %w", source, block, err)
	}
	return nil
}

// dismissAll forgets whom an earlier daemon has admitted.
func (k *Kernel) dismissAll() error {
	var all []relayAdmission
	var key relayAdmission
	var value uint8
	list := k.maps.Admitted.Iterate()
	for list.Next(&key, &value) {
		all = append(all, key)
	}
	if err := list.Err(); err != nil {
		return fmt.Errorf("read who is admitted: %w", err)
	}
	for _, key := range all {
		if err := k.maps.Admitted.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("dismiss who was admitted: %w", err)
		}
	}
	return nil
}

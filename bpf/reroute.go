//go:build linux

package bpf

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
)

// hop is where packets to a host leave the machine, and who gets them there.
type hop struct {
	ifindex int
	gateway netip.Addr
}

// way says in a flow which way its packets go. If the other leg is behind the
// gateway that the packets come from, they go back there and no route is looked
// up; else the interface is what helps where the kernel has no answer.
func (f *relayFlow) way(behind, ahead hop) {
	f.Ifindex, f.Flags = uint32(ahead.ifindex), 0
	if behind == ahead && ahead.ifindex != 0 {
		f.Flags = flowBack
	}
}

// followRoutes keeps the ways of all flows right until ctx is done. After a change
// of routes it looks at every flow; the more there are, the longer it rests
// afterwards, so that routes that change all the time cost a tenth of a
// processor.
func (k *Kernel) followRoutes(ctx context.Context) error {
	for {
		begin := time.Now()
		if err := k.reroute(); err != nil {
			k.log.Error("routes not followed", "error", err)
		}
		rest := time.NewTimer(max(100*time.Millisecond, 9*time.Since(begin)))
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
			return nil
		}
		if err := k.routes.wait(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch the routes: %w", err)
		}
	}
}

// reroute makes the ways of all flows those of the routes that there are now.
func (k *Kernel) reroute() error {
	var failed error
	err := k.eachFlow(func(keys []relayFlowKey, flows []relayFlow) bool {
		hopTo := k.network.hops()
		for i, key := range keys {
			from, to := k.legsOf(key, flows[i])
			f := flows[i]
			if f.way(hopTo(from), hopTo(to)); f == flows[i] {
				continue
			}
			if failed = k.setWay(key, flows[i], f); failed != nil {
				return false
			}
		}
		return true
	})
	if failed != nil {
		return failed
	}
	return err
}

func (k *Kernel) legsOf(key relayFlowKey, f relayFlow) (from, to Leg) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.own.legs(key, f)
}

// setWay replaces a flow, unless it is another one by now.
func (k *Kernel) setWay(key relayFlowKey, old, anew relayFlow) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return errClosed
	}
	now, live, err := k.flowLocked(key)
	if !live || now != old || err != nil {
		return err
	}
	if err := k.maps.Flows.Update(&key, &anew, ebpf.UpdateExist); err != nil {
		return fmt.Errorf("change the way of a flow: %w", err)
	}
	return nil
}

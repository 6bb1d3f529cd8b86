//go:build !linux

package network

import (
	"context"
	"time"
)

// interval is how often the addresses are looked at where no system tells.
const interval = 5 * time.Second

func look() (state, error) {
	all, err := addresses()
	if err != nil {
		return state{}, err
	}
	return stateOf(all, route{}), nil
}

func (w *Watch) listenSystem(ctx context.Context, signs chan<- struct{}) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case signs <- struct{}{}:
		default:
		}
	}
}

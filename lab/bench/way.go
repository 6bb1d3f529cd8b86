package main

import (
	"errors"
	"fmt"
	"time"
)

// patience is for how long any step of a measurement may take beyond its time.
const patience = 20 * time.Second

// way is how the client's application reaches the services.
type way struct {
	name string // of the contender
	addr func(port uint16) string
}

// at is a way whose ends on the client's own machine have the services' ports, shifted.
func at(name string, shift uint16) way {
	return way{name: name, addr: func(port uint16) string { return fmt.Sprintf("127.0.0.1:%d", port+shift) }}
}

const directName = "direct path"

// direct is the way without anybody's help but NAT b's.
func (w *world) direct() (way, error) {
	return way{name: directName, addr: func(port uint16) string { return fmt.Sprintf("%v:%d", w.natB.Addr(), port) }}, nil
}

// until asks again and again until ready returns nil. It gives up when time is up, or when dead is closed.
func until(what string, dead <-chan struct{}, ready func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); ; {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-dead:
			return errors.New("waiting until " + what + ": the program ended")
		case <-late:
			return fmt.Errorf("waiting until %s: not after %v: %w", what, patience, err)
		}
	}
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// warmUp is the time between the first byte at the far end and the begin of a measurement.
const warmUp = 300 * time.Millisecond

// goodput returns what arrives at the sink when the client's application sends to the address, in bit/s.
func (w *world) goodput(addr string, streams int) ([]float64, error) {
	before := w.services.received.Load()
	var said bytes.Buffer
	client := w.client.Command(w.self, "client", doSend, addr, strconv.Itoa(streams))
	client.Stderr = &said
	if err := client.Start(); err != nil {
		return nil, err
	}
	rate, err := w.arriving(before)
	if killErr := client.Process.Kill(); killErr != nil {
		err = errors.Join(err, killErr)
	}
	client.Wait() // it was killed
	if err != nil {
		return nil, fmt.Errorf("%w %s", err, said.Bytes())
	}
	return []float64{rate}, w.services.waitIdle()
}

// arriving waits until more than before has come to the sink, and returns what comes from then on, in bit/s.
func (w *world) arriving(before int64) (float64, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); w.services.received.Load() == before; {
		select {
		case <-tick.C:
		case <-late:
			return 0, errors.New("nothing arrives at the service")
		}
	}
	<-time.After(max(warmUp, w.setting.warm))
	start, first := time.Now(), w.services.received.Load()
	<-time.After(w.options.window)
	arrived, took := w.services.received.Load()-first, time.Since(start)
	if arrived == 0 {
		return 0, fmt.Errorf("nothing more arrives at the service, for %v", took)
	}
	return float64(arrived) * 8 / took.Seconds(), nil
}

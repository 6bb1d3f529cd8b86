package path

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/netport/netport/proto/identity"
)

const (
	fileVersion = 1
	// maxFile is more than maxRemembered facts of the longest names need.
	maxFile = 4 << 20
	// maxName bounds every text of a topic.
	maxName = 128
)

// file is the memory on disk. Losing it costs a portal a few hundred
// milliseconds, once in each network.
type file struct {
	Version int         `json:"version"`
	Counter uint64      `json:"counter"` // of binds, so far
	Facts   []savedFact `json:"facts"`
}

type savedFact struct {
	What      subject   `json:"what"`
	Network   string    `json:"network"`
	Relay     string    `json:"relay,omitempty"`
	Peer      string    `json:"peer,omitempty"`
	Until     int64     `json:"until,omitempty"` // Unix seconds
	Mode      string    `json:"mode,omitempty"`
	Connected bool      `json:"connected,omitempty"`
	Hold      *heldFact `json:"hold,omitempty"`
}

type heldFact struct {
	Interval int64 `json:"interval"`         // milliseconds
	Failed   int64 `json:"failed,omitempty"` // milliseconds
	Wait     int64 `json:"wait,omitempty"`   // seconds
	Again    int64 `json:"again,omitempty"`  // Unix seconds
}

// save writes the memory to a file, whole or not at all.
func (m *memory) save(name string, counter uint64) error {
	out := file{Version: fileVersion, Counter: counter}
	m.mu.Lock()
	for t, f := range m.facts {
		s := savedFact{What: t.what, Network: t.network, Relay: t.relay, Peer: t.peer, Connected: f.connected}
		if !f.until.IsZero() {
			s.Until = f.until.Unix()
		}
		if t.what == spliceMode {
			s.Mode = f.mode.String()
		}
		if h := f.hold; h.known {
			s.Hold = &heldFact{Interval: steps[h.step].Milliseconds()}
			if h.failed > 0 {
				s.Hold.Failed, s.Hold.Wait, s.Hold.Again = steps[h.failed].Milliseconds(), int64(h.wait/time.Second), h.again.Unix()
			}
		}
		out.Facts = append(out.Facts, s)
	}
	m.mu.Unlock()
	b, err := json.Marshal(out)
	if err != nil {
		return err
	}
	return identity.ReplaceFile(name, append(b, '\n'), 0o600)
}

// load reads what save has written and returns the counter. A file that is not
// there is an empty one; what a newer or older portal has written and this one
// does not understand is left out. On an error nothing is taken.
func (m *memory) load(name string) (counter uint64, err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read what is known of networks: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return 0, fmt.Errorf("read what is known of networks: %w", err)
	}
	if len(b) > maxFile {
		return 0, fmt.Errorf("read what is known of networks: %s is larger than %d bytes", name, maxFile)
	}
	var in file
	if err := json.Unmarshal(b, &in); err != nil {
		return 0, fmt.Errorf("read what is known of networks: %s: %w", name, err)
	}
	if in.Version != fileVersion {
		return 0, fmt.Errorf("read what is known of networks: %s is of version %d, this portal writes %d", name, in.Version, fileVersion)
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range in.Facts[:min(len(in.Facts), maxRemembered)] {
		if t, f, ok := s.read(now); ok {
			m.facts[t] = f
		}
	}
	return in.Counter, nil
}

// read returns a fact if it is one, and not over.
func (s savedFact) read(now time.Time) (topic, fact, bool) {
	t := topic{s.What, s.Network, s.Relay, s.Peer}
	f := fact{connected: s.Connected}
	if max(len(t.network), len(t.relay), len(t.peer)) > maxName {
		return t, f, false
	}
	switch s.What {
	case packetBad, quicBad, smallMSS:
		f.until = s.until(now, max(doubtTime, smallTime))
		return t, f, now.Before(f.until)
	case quicFirst:
		return t, f, true
	case spliceMode:
		f.mode = spliceModes
		for m := range spliceModes {
			if m.String() == s.Mode {
				f.mode = m
			}
		}
		if f.mode == SessionPort {
			return t, f, true
		}
		f.until = s.until(now, sharedTime)
		return t, f, f.mode < spliceModes && now.Before(f.until)
	case udpHold:
		if s.Hold == nil {
			return t, f, false
		}
		f.hold = hold{known: true, step: stepOf(s.Hold.Interval), failed: max(stepOf(s.Hold.Failed), 0)}
		if f.hold.failed > 0 {
			f.hold.wait = min(max(time.Duration(s.Hold.Wait)*time.Second, firstDelay), maxDelay)
			f.hold.again = time.Unix(s.Hold.Again, 0)
			if longest := now.Add(f.hold.wait); f.hold.again.After(longest) {
				f.hold.again = longest
			}
		}
		return t, f, f.hold.step >= 0
	}
	return t, f, false
}

// until returns when a fact ends. The clock may have been set since: nothing is believed for
// longer than it would have been.
func (s savedFact) until(now time.Time, longest time.Duration) time.Time {
	if end := time.Unix(s.Until, 0); end.Before(now.Add(longest)) {
		return end
	}
	return now.Add(longest)
}

// stepOf returns the index of a step, -1 if it is none.
func stepOf(milliseconds int64) int {
	return slices.Index(steps[:], time.Duration(milliseconds)*time.Millisecond)
}

package link

import (
	"errors"
	"fmt"
	"time"
)

// Shape says what a link does to the frames of one direction. The zero Shape passes everything at once. Shares lie
// between 0 and 1.
type Shape struct {
	// Delay is how long each frame travels.
	Delay time.Duration
	// Jitter is the most that is added to Delay, evenly spread. Frames keep their order: what follows a late one closely
	// is late, too.
	Jitter time.Duration
	// Rate is in bits per second of Ethernet frames; 0 is no limit.
	Rate int64
	// Queue is how many bytes wait for the rate before frames are dropped; 0 is what the rate carries in 100 ms, and
	// 16 KiB at least.
	Queue int
	// Loss is the share of frames that get lost, each on its own.
	Loss float64
	// Burst loses frames in bursts, besides Loss.
	Burst GilbertElliott
	// Duplicate is the share of frames that arrive twice.
	Duplicate float64
	// Reorder is the share of frames that are held back by ReorderBy, so that what follows meanwhile overtakes them.
	Reorder float64
	// ReorderBy is how long; 0 is 10 ms.
	ReorderBy time.Duration
	// Corrupt is the share of frames in which one bit behind the Ethernet header is flipped.
	Corrupt float64
}

// GilbertElliott is a link that is in a good or a bad state and may change it before each frame. The zero value never
// is in the bad state.
type GilbertElliott struct {
	ToBad    float64 // probability of good to bad; 1/ToBad frames is the mean time between bursts
	ToGood   float64 // probability of bad to good; 1/ToGood frames is the mean length of a burst
	LossGood float64 // share of frames lost in the good state
	LossBad  float64 // share of frames lost in the bad state
}

const (
	defaultReorderBy = 10 * time.Millisecond
	defaultQueueTime = 100 * time.Millisecond
	minDefaultQueue  = 16 << 10
)

// check returns s with its defaults filled in, or says what is wrong with it.
func (s Shape) check() (Shape, error) {
	for name, share := range map[string]float64{
		"Loss": s.Loss, "Duplicate": s.Duplicate, "Reorder": s.Reorder, "Corrupt": s.Corrupt,
		"Burst.ToBad": s.Burst.ToBad, "Burst.ToGood": s.Burst.ToGood,
		"Burst.LossGood": s.Burst.LossGood, "Burst.LossBad": s.Burst.LossBad,
	} {
		if !(share >= 0 && share <= 1) {
			return Shape{}, fmt.Errorf("shape a link: %s is %v, want a share between 0 and 1", name, share)
		}
	}
	if s.Delay < 0 || s.Jitter < 0 || s.ReorderBy < 0 || s.Rate < 0 || s.Queue < 0 {
		return Shape{}, errors.New("shape a link: a negative time, rate or queue")
	}
	if s.ReorderBy == 0 {
		s.ReorderBy = defaultReorderBy
	}
	if s.Queue == 0 {
		s.Queue = max(minDefaultQueue, int(float64(s.Rate)/8*defaultQueueTime.Seconds()))
	}
	return s, nil
}

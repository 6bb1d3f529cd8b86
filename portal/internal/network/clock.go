package network

import "time"

// slack is how far clocks may drift apart from one tick to the next, and how late
// a tick may come on a busy machine.
const slack = 2 * time.Second

// reading is what the clocks show at one moment.
type reading struct {
	running time.Duration // runs while the machine runs
	booted  time.Duration // runs while it sleeps, too; where there is no such clock: as wall
	wall    time.Time     // can be set; without a monotonic reading
	tells   bool          // booted is a clock of its own
}

// since says what has happened between two readings that were to be taken tick
// apart: for how long the machine slept or this process was stopped, and by how
// much the wall clock was set. Where no clock runs through a sleep, a wall clock
// that is ahead counts as a sleep: to look after connections for nothing is
// better than not to.
func (now reading) since(then reading, tick time.Duration) (away, set time.Duration) {
	ran, booted, wall := now.running-then.running, now.booted-then.booted, now.wall.Sub(then.wall)
	if !now.tells {
		booted = max(wall, ran)
	}
	if stopped := booted - tick; stopped > slack {
		away = stopped
	}
	if jump := wall - booted; jump > slack || jump < -slack {
		set = jump
	}
	return away, set
}

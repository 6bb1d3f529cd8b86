package carrier

import (
	"testing"
	"time"
)

// scene is what a vigil sees look after look, with the time in its own hands.
type scene struct {
	v   vigil
	now time.Time
}

func newScene() *scene {
	s := &scene{now: time.Unix(1e9, 0)}
	s.v.askedAt = s.now
	s.v.begin(s.now, askEvery)
	return s
}

// until looks, at the times that the vigil asks for, until is is true of a
// finding, and returns how long that took. see makes what is seen.
func (s *scene) until(t *testing.T, see func() sight, is func(finding) bool) (took time.Duration) {
	t.Helper()
	began := s.now
	wait := s.v.due.Sub(s.now)
	for s.now.Sub(began) < time.Hour {
		s.now = s.now.Add(wait)
		f := s.v.look(s.now, see())
		if is(f) {
			return s.now.Sub(began)
		}
		if wait = f.next; wait <= 0 {
			t.Fatal("the next look is at once")
		}
	}
	t.Fatal("it was not found in an hour")
	return 0
}

func silent(f finding) bool { return f.silent }
func dead(f finding) bool   { return f.dead }

func TestVigilFindsSilence(t *testing.T) {
	for _, test := range []struct {
		name        string
		sight       sight
		least, most time.Duration
	}{
		{"nothing comes", sight{}, 1200 * time.Millisecond, 1300 * time.Millisecond},
		{"nothing comes on a slow path", sight{rtt: time.Second}, 4200 * time.Millisecond, 4300 * time.Millisecond},
		{"frames come but no answers", sight{heard: true}, 1800 * time.Millisecond, 1900 * time.Millisecond},
		{"frames come but no answers on a slow path", sight{heard: true, rtt: time.Second}, 6300 * time.Millisecond, 6400 * time.Millisecond},
	} {
		s := newScene()
		asked := s.now
		see := func() sight {
			test.sight.busy, test.sight.waiting = true, asked
			return test.sight
		}
		// What was heard before the first look counts from that look.
		if took := s.until(t, see, silent); took < test.least || took > test.most {
			t.Errorf("%s: silent after %v, want %v to %v", test.name, took, test.least, test.most)
		}
		if f := s.v.look(s.now, sight{heard: true, answered: true, busy: true, waiting: s.now}); f.silent {
			t.Errorf("%s: silent after an answer", test.name)
		}
	}
}

func TestVigilFindsDeath(t *testing.T) {
	for _, test := range []struct {
		name  string
		sight sight
		want  time.Duration
	}{
		{"nothing comes", sight{}, 20 * time.Second},
		{"frames come but no answers", sight{heard: true}, 40 * time.Second},
		{"the path is slow", sight{rtt: 10 * time.Second}, 20 * time.Second},
	} {
		s := newScene()
		test.sight.waiting = s.now
		if took := s.until(t, func() sight { return test.sight }, dead); took < test.want || took > test.want+time.Second {
			t.Errorf("%s: dead after %v, want %v", test.name, took, test.want)
		}
	}
}

// What this process has slept through is not the peer's fault.
func TestOwnStallIsNotSilence(t *testing.T) {
	for _, late := range []time.Duration{200 * time.Millisecond, 999 * time.Millisecond, time.Second, time.Minute} {
		s := newScene()
		asked := s.now
		s.now = s.v.due.Add(700*time.Millisecond + late) // a look that was due when 1.2 s had passed
		s.v.due = s.now.Add(-late)
		f := s.v.look(s.now, sight{waiting: asked})
		if f.silent || f.dead {
			t.Errorf("%v late: silent %v, dead %v at once", late, f.silent, f.dead)
		}
		// The answer was waiting in the socket.
		s.now = s.now.Add(f.next)
		if f := s.v.look(s.now, sight{heard: true, answered: true, busy: true}); f.silent || f.dead {
			t.Errorf("%v late: silent %v, dead %v though the answer came", late, f.silent, f.dead)
		}
		// If it does not come now, it is the peer after all.
		asked = s.now
		if took := s.until(t, func() sight { return sight{waiting: asked} }, silent); took > 2*time.Second {
			t.Errorf("%v late: silent only %v after that", late, took)
		}
	}
}

func TestVigilRestsWhenNothingIsOwed(t *testing.T) {
	s := newScene()
	quiet := sight{heard: true, answered: true}
	if f := s.v.look(s.now, quiet); !f.rest || f.ask {
		t.Errorf("nothing is owed: %+v", f)
	}
	// After the rest it asks, unless the peer has.
	s.now = s.now.Add(time.Minute)
	if f := s.v.look(s.now, sight{rested: true, asked: true}); !f.rest {
		t.Errorf("the peer has asked: %+v", f)
	}
	s.now = s.now.Add(time.Minute)
	if f := s.v.look(s.now, sight{rested: true}); f.rest || !f.ask {
		t.Errorf("nobody has asked: %+v", f)
	}
}

// What leaves between a PING and a look that sends none is asked after all the
// same before the carrier rests.
func TestEveryFrameIsAskedAfter(t *testing.T) {
	for _, when := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond, askEvery} {
		s := newScene()
		s.now = s.now.Add(askEvery)
		if f := s.v.look(s.now, sight{busy: true}); !f.ask {
			t.Fatalf("frames come and go: %+v", f)
		}
		s.now = s.now.Add(when)
		f := s.v.look(s.now, sight{busy: true, heard: true, answered: true})
		for asked := f.ask; !asked; asked = f.ask {
			s.now = s.now.Add(askEvery)
			if f = s.v.look(s.now, sight{heard: true, answered: true}); f.rest {
				t.Fatalf("a frame left %v after a PING: it rests without another", when)
			}
		}
		s.now = s.now.Add(askEvery)
		if f = s.v.look(s.now, sight{heard: true, answered: true}); !f.rest {
			t.Errorf("a frame left %v after a PING, and one was answered since: %+v", when, f)
		}
	}
}

// After full packets a PING of full size is sent, again and again until one is
// answered.
func TestFullPacketsAreAskedAfter(t *testing.T) {
	s := newScene()
	look := func(see sight) finding {
		s.now = s.now.Add(askEvery)
		return s.v.look(s.now, see)
	}
	if f := look(sight{busy: true, heard: true, answered: true}); !f.ask || f.fill {
		t.Errorf("small frames only: %+v", f)
	}
	f := look(sight{busy: true, left: true, heard: true, answered: true})
	filled := s.now
	if !f.fill {
		t.Errorf("full packets have left: %+v", f)
	}
	if f := look(sight{heard: true, answered: true, waiting: filled}); f.rest || !f.fill {
		t.Errorf("the large PING waits: %+v", f)
	}
	if f := look(sight{heard: true, answered: true}); !f.rest {
		t.Errorf("the large PING was answered: %+v", f)
	}
}

func TestDoubtIsResolvedSoon(t *testing.T) {
	const rtt = 40 * time.Millisecond // so a doubt lasts 220 ms
	for _, test := range []struct {
		name          string
		first, second sight // what is seen in the halves; the PING waits, unless answered
		answered      bool
		want          bool // silent
	}{
		{"nothing comes", sight{}, sight{}, false, true},
		{"the answer comes", sight{heard: true, answered: true}, sight{}, true, false},
		{"what was under way comes", sight{heard: true, answered: true}, sight{}, false, true},
		{"frames keep coming", sight{heard: true}, sight{heard: true}, false, false},
	} {
		s := newScene()
		began := s.now
		wait := s.v.doubt(s.now, rtt)
		var f finding
		for i, see := range []sight{test.first, test.second} {
			see.rtt, see.busy = rtt, true
			if !test.answered {
				see.waiting = began
			}
			s.now = s.now.Add(wait)
			f = s.v.look(s.now, see)
			if wait = f.next; i == 0 && f.silent {
				t.Errorf("%s: silent after half of the time", test.name)
			}
		}
		if f.silent != test.want || !test.answered && s.now.Sub(began) != 220*time.Millisecond {
			t.Errorf("%s: silent %v after %v, want %v", test.name, f.silent, s.now.Sub(began), test.want)
		}
	}
}

package stage

import (
	"fmt"
	"os/exec"
	"testing"
	"time"
)

// story is a test that is ended by hand.
type story struct {
	testing.TB
	name    string
	entered chan struct{} // closed when it is on the stage
	ends    []func()
}

func (s *story) Name() string     { return s.name }
func (s *story) Cleanup(f func()) { s.ends = append(s.ends, f) }

func (s *story) end() {
	for _, f := range s.ends {
		f()
	}
}

// begin has a story wait for the stage.
func begin(t *testing.T, name string) *story {
	s := &story{TB: t, name: name, entered: make(chan struct{})}
	go func() {
		defer close(s.entered)
		Enter(s)
	}()
	return s
}

func (s *story) wantOn() {
	s.Helper()
	select {
	case <-s.entered:
	case <-time.After(30 * time.Second):
		s.Fatalf("%s is not on the stage", s.name)
	}
}

func TestStageHasOnlySoManyPlaces(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // a stage that nobody else enters
	var stories []*story
	for i := range places() {
		s := begin(t, fmt.Sprint("story ", i))
		s.wantOn()
		stories = append(stories, s)
	}
	idle := &story{TB: t, name: "idle"}
	EnterIdle(idle)
	world := begin(t, "idle")
	world.wantOn()
	part := begin(t, "story 0/a part/of it")
	part.wantOn()
	late := begin(t, "late")
	select {
	case <-late.entered:
		t.Error("there was a place too many")
	case <-time.After(100 * time.Millisecond):
	}
	idle.end()
	stories[1].end()
	late.wantOn()
	for _, s := range append(stories[2:], stories[0], part, late) {
		s.end()
	}
	again := begin(t, "story 0/a part/of it")
	again.wantOn()
	if len(again.ends) == 0 {
		t.Error("a story that has ended is still on the stage")
	}
	again.end()
}

// A program that a story has started and that outlives it has no place: it has inherited none.
func TestProgramsHaveNoPlace(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s := begin(t, "story")
	s.wantOn()
	program := exec.Command("sleep", "1000")
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		program.Process.Kill()
		program.Wait() // it was killed
	}()
	s.end()
	var stories []*story
	for i := range places() {
		s := begin(t, fmt.Sprint("later story ", i))
		s.wantOn()
		stories = append(stories, s)
	}
	for _, s := range stories {
		s.end()
	}
}

package main

import (
	"fmt"
	"math"
	"slices"
)

// experiment is one line of the goals: what is measured of whom.
type experiment struct {
	id  string
	at  setting
	set func(*world) (comparison, error) // makes the contenders ready
}

// comparison is one or more quantities that the same contenders are measured by.
type comparison struct {
	quantities []quantity
	contenders []contender   // the first is Netport
	mode       func() string // of Netport's relay, asked when all is measured; nil if there is none to be named
	rounds     int           // 0: as many as the command line says
	end        func() error  // gives back what the contenders hold; nil if nothing
}

// quantity is one figure that a contender's measurement returns.
type quantity struct {
	what string // "TCP goodput, 1 stream"
	unit unit
	// targets of Netport's ratio to a rival, by the rival's name. A rival without one is there for information.
	targets map[string]target
	own     target // what they ask of Netport's own figure; zero if nothing
}

// target is what the goals ask of a ratio.
type target struct {
	atLeast, atMost float64 // one of them
}

func (t target) met(ratio float64) bool {
	return ratio >= t.atLeast && (t.atMost == 0 || ratio <= t.atMost)
}

// judge says whether a figure meets the target, which is written as text.
func (t target) judge(figure float64, text string) goal {
	met := t.met(figure)
	return goal{Target: text, Met: &met}
}

// in writes the target of a figure in a unit.
func (t target) in(u unit) string {
	if t.atMost != 0 {
		return "<= " + u.print(t.atMost)
	}
	return ">= " + u.print(t.atLeast)
}

func (t target) String() string {
	if t.atMost != 0 {
		return fmt.Sprintf("<= %.2g", t.atMost)
	}
	return fmt.Sprintf(">= %.2g", t.atLeast)
}

// contender is somebody who is measured: in one round it returns one figure for each quantity.
type contender struct {
	name    string
	measure func() ([]float64, error)
}

// figures are one contender's, by quantity and round.
type figures struct {
	name   string
	values [][]float64
}

// run measures all contenders, round by round. Who begins changes with the round, so that no one always comes after the
// same one.
func (c comparison) run(rounds int, progress func(string)) ([]figures, error) {
	all := make([]figures, len(c.contenders))
	for i, who := range c.contenders {
		all[i] = figures{name: who.name, values: make([][]float64, len(c.quantities))}
	}
	for round := range rounds {
		for turn := range c.contenders {
			i := (turn + round) % len(c.contenders)
			who := c.contenders[i]
			step := fmt.Sprintf("%s, round %d: %s", c.quantities[0].what, round+1, who.name)
			progress(step)
			got, err := who.measure()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", step, err)
			}
			for q, value := range got {
				all[i].values[q] = append(all[i].values[q], value)
			}
		}
	}
	return all, nil
}

// spread is the middle, the least and the most of some values.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(values []float64) spread {
	return spread{Median: median(values), Min: slices.Min(values), Max: slices.Max(values)}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

// ratios are those of two contenders, round by round.
func ratios(of, to []float64) []float64 {
	r := make([]float64, len(of))
	for i := range of {
		r[i] = of[i] / to[i]
	}
	return r
}

// percentile is the value that so many of the sorted values do not exceed, for p from 0 to 1.
func percentile(sorted []float64, p float64) float64 {
	return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)]
}

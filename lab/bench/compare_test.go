package main

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestContendersAlternateAndRatiosAreTakenWithinARound(t *testing.T) {
	var order []string
	speed := 0.0 // of the machine, which drifts
	who := func(name string, factor float64) contender {
		return contender{name: name, measure: func() ([]float64, error) {
			order = append(order, name)
			if speed++; len(order)%2 == 1 {
				speed *= 10
			}
			return []float64{factor * float64((len(order)+1)/2)}, nil
		}}
	}
	c := comparison{quantities: []quantity{{what: "speed"}}, contenders: []contender{who("netport", 3), who("rival", 2)}}
	got, err := c.run(3, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"netport", "rival", "rival", "netport", "netport", "rival"}, order); diff != "" {
		t.Error(diff)
	}
	r := ratios(got[0].values[0], got[1].values[0])
	if diff := cmp.Diff(spread{Median: 1.5, Min: 1.5, Max: 1.5}, spreadOf(r)); diff != "" {
		t.Errorf("ratios %v: %s", r, diff)
	}
}

func TestMiddlesAndPercentiles(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{7}, 7}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 3}, 2.5}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.values, got, c.want)
		}
	}
	var hundred []float64
	for i := range 100 {
		hundred = append(hundred, float64(i+1))
	}
	for p, want := range map[float64]float64{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := percentile(hundred, p); got != want {
			t.Errorf("percentile %v is %v, want %v", p, got, want)
		}
	}
}

func TestTargetsBoundFromBelowOrAbove(t *testing.T) {
	for _, c := range []struct {
		target target
		ratio  float64
		want   bool
	}{
		{target{atLeast: 4}, 4, true}, {target{atLeast: 4}, 3.99, false},
		{target{atMost: 0.3}, 0.3, true}, {target{atMost: 0.3}, 0.31, false},
	} {
		if got := c.target.met(c.ratio); got != c.want {
			t.Errorf("%v met by %v: %t, want %t", c.target, c.ratio, got, c.want)
		}
	}
	if got := fmt.Sprint(target{atMost: 0.3}, target{atLeast: 0.85}); got != "<= 0.3 >= 0.85" {
		t.Errorf("printed %q", got)
	}
}

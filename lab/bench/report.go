package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// unit is how a figure is printed.
type unit string

const (
	bitrate unit = "bit/s"
	seconds unit = "s"
	rate    unit = "1/s"
	size    unit = "B"
	trips   unit = "round trips"
)

// print writes a figure with four digits or so and the unit that suits it.
func (u unit) print(value float64) string {
	switch u {
	case bitrate:
		if value < 1e9 {
			return fmt.Sprintf("%.0f Mbit/s", value/1e6)
		}
		return fmt.Sprintf("%.2f Gbit/s", value/1e9)
	case trips:
		return fmt.Sprintf("%.2f RTT", value)
	case size:
		return fmt.Sprintf("%.0f B", value)
	case seconds:
		if value < 10e-6 {
			return fmt.Sprintf("%.0f ns", value*1e9)
		}
		if value >= 10e-3 {
			return fmt.Sprintf("%.0f ms", value*1e3)
		}
		return fmt.Sprintf("%.0f us", value*1e6)
	default:
		return fmt.Sprintf("%.0f/s", value)
	}
}

// report is what a run of the bench found out.
type report struct {
	Time       time.Time     `json:"time"`
	Kernel     string        `json:"kernel"`
	Go         string        `json:"go"`
	Processors int           `json:"processors"`
	Congestion string        `json:"congestion_control"`
	Rounds     int           `json:"rounds"`
	Window     time.Duration `json:"window_ns"`
	Results    []result      `json:"results"`
}

// result is one quantity: every contender's figures, and Netport's ratio to each rival.
type result struct {
	ID      string               `json:"id"`
	What    string               `json:"what"`
	Unit    unit                 `json:"unit"`
	Mode    string               `json:"relay_mode,omitempty"`
	Figures map[string][]float64 `json:"figures"` // by contender, one a round
	Ratios  []ratio              `json:"ratios"`
	goal                         // of the figure itself
}

type ratio struct {
	Rival  string    `json:"rival"`
	Rounds []float64 `json:"rounds"`
	spread
	goal
}

// goal is a target and whether it is met.
type goal struct {
	Target string `json:"target,omitempty"`
	Met    *bool  `json:"met,omitempty"`
}

// verdict is empty if there is no target.
func (g goal) verdict() string {
	switch {
	case g.Met == nil:
		return ""
	case *g.Met:
		return "yes"
	default:
		return "NO"
	}
}

func newReport(o options) *report {
	return &report{
		Time: time.Now().UTC(), Kernel: kernel(), Go: runtime.Version(), Processors: runtime.NumCPU(),
		Congestion: o.congestion, Rounds: o.rounds, Window: o.window,
	}
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// add takes the figures of a comparison, the first contender's being Netport's.
func (r *report) add(id string, c comparison, all []figures) {
	mode := ""
	if c.mode != nil {
		mode = c.mode()
	}
	for q, quantity := range c.quantities {
		res := result{ID: id, What: quantity.what, Unit: quantity.unit, Mode: mode, Figures: make(map[string][]float64)}
		for _, f := range all {
			res.Figures[f.name] = f.values[q]
		}
		for _, rival := range all[1:] {
			rounds := ratios(all[0].values[q], rival.values[q])
			one := ratio{Rival: rival.name, Rounds: rounds, spread: spreadOf(rounds)}
			if t, ok := quantity.targets[rival.name]; ok {
				one.goal = t.judge(one.Median, t.String())
			}
			res.Ratios = append(res.Ratios, one)
		}
		if quantity.own != (target{}) {
			res.goal = quantity.own.judge(median(all[0].values[q]), quantity.own.in(quantity.unit))
		}
		r.Results = append(r.Results, res)
	}
}

// table prints the medians and the ratios, in lines of at most 100 characters.
func (r *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Netport and rivals side by side, %d rounds of %v, TCP congestion control %s\n", r.Rounds, r.Window, r.Congestion)
	fmt.Fprintf(&b, "%d processors, Linux %s, %s\n", r.Processors, r.Kernel, r.Go)
	b.WriteString("Figures are medians; the ratio is Netport's to the rival: median of the rounds (least-most).\n\n")
	writeLine(&b, line{own: "Netport", rival: "rival", ratio: "ratio", goal: "target"})
	for _, res := range r.Results {
		for _, l := range res.lines() {
			writeLine(&b, l)
		}
	}
	b.WriteString("\n")
	for _, note := range notes {
		fmt.Fprintf(&b, "%-18s%s\n", note.name, note.text)
	}
	return b.String()
}

// line is one of the table, by its columns.
type line struct{ id, what, own, rival, theirs, ratio, spread, goal string }

func writeLine(b *strings.Builder, l line) {
	text := fmt.Sprintf("%-4s%-22s%13s %-18s%12s  %5s %-11s %s",
		l.id, l.what, l.own, l.rival, l.theirs, l.ratio, l.spread, l.goal)
	b.WriteString(strings.TrimRight(text, " ") + "\n")
}

// lines are those of a result: one for each rival, and at least two if the relay's mode is to be said.
func (res result) lines() []line {
	var all []line
	for _, one := range res.Ratios {
		all = append(all, line{
			rival: one.Rival, theirs: res.Unit.print(median(res.Figures[one.Rival])),
			ratio: short(one.Median), spread: "(" + short(one.Min) + "-" + short(one.Max) + ")", goal: strings.TrimSpace(one.Target + " " + one.verdict()),
		})
	}
	if len(all) == 0 || res.Target != "" {
		all = slices.Insert(all, 0, line{spread: res.Target, goal: res.verdict()})
	}
	all[0].id, all[0].what, all[0].own = res.ID, res.What, res.Unit.print(median(res.Figures[netportName]))
	if res.Mode == "" {
		return all
	}
	if len(all) == 1 {
		all = append(all, line{})
	}
	all[1].what = "  by " + res.Mode
	return all
}

// short writes a ratio with three digits or so.
func short(v float64) string {
	if v >= 10 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// save writes the report as JSON into a file of its own in dir.
func (r *report) save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	name := filepath.Join(dir, r.Time.Format("2006-01-02T150405Z")+".json")
	if err := os.WriteFile(name, append(b, '\n'), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "\nEvery figure is in %s\n", name)
	return nil
}

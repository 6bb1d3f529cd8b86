package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// unit is how a figure is printed.
type unit string

const (
	bitrate unit = "bit/s"
	seconds unit = "s"
	rate    unit = "1/s"
)

// print writes a figure with four digits or so and the unit that suits it.
func (u unit) print(value float64) string {
	switch u {
	case bitrate:
		return fmt.Sprintf("%.2f Gbit/s", value/1e9)
	case seconds:
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
	Figures map[string][]float64 `json:"figures"` // by contender, one a round
	Ratios  []ratio              `json:"ratios"`
}

type ratio struct {
	Rival  string    `json:"rival"`
	Rounds []float64 `json:"rounds"`
	spread
	Target string `json:"target,omitempty"`
	Met    *bool  `json:"met,omitempty"`

	netport, rival float64 // medians
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
	for q, quantity := range c.quantities {
		res := result{ID: id, What: quantity.what, Unit: quantity.unit, Figures: make(map[string][]float64)}
		for _, f := range all {
			res.Figures[f.name] = f.values[q]
		}
		for _, rival := range all[1:] {
			rounds := ratios(all[0].values[q], rival.values[q])
			one := ratio{
				Rival: rival.name, Rounds: rounds, spread: spreadOf(rounds),
				netport: median(all[0].values[q]), rival: median(rival.values[q]),
			}
			if t, ok := quantity.targets[rival.name]; ok {
				met := t.met(one.Median)
				one.Target, one.Met = t.String(), &met
			}
			res.Ratios = append(res.Ratios, one)
		}
		r.Results = append(r.Results, res)
	}
}

// table prints the medians and the ratios, in lines of at most 100 characters.
func (r *report) table(w io.Writer) error {
	_, err := fmt.Fprintf(w, "Netport and rivals side by side, %d rounds of %v, TCP with %s, %d processors, Linux %s, %s\n"+
		"Figures are medians; ratio is the median of Netport's ratio to the rival in each round, (least-most).\n\n",
		r.Rounds, r.Window, r.Congestion, r.Processors, r.Kernel, r.Go)
	const line = "%-3s %-25s %11s  %-18s %11s %6s %-13s %s\n"
	fmt.Fprintf(w, line, "", "", "Netport", "rival", "", "ratio", "", "target")
	for _, res := range r.Results {
		id, what := res.ID, res.What
		for _, one := range res.Ratios {
			target := ""
			if one.Met != nil {
				target = one.Target + map[bool]string{true: " yes", false: " NO"}[*one.Met]
			}
			if _, err = fmt.Fprintf(w, line, id, what, res.Unit.print(one.netport), one.Rival, res.Unit.print(one.rival),
				short(one.Median), "("+short(one.Min)+"-"+short(one.Max)+")", target); err != nil {
				return err
			}
			id, what = "", ""
		}
	}
	return err
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

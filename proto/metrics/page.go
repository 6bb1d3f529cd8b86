// Package metrics writes what a daemon counts as Prometheus reads it: the text
// exposition format 0.0.4.
//
// There is no registry. A daemon builds a Page when it is asked, out of what it knows
// anyway: status, tables, the kernel's counters. So nothing is counted twice, and
// what carries data pays nothing. What is nowhere else is in a Counts or a Histogram.
//
// All names are netport_ROLE_NOUN_UNIT, with _total at the end of what only rises;
// units are seconds and bytes. Labels are few: forward, peer, relay, reason,
// transport and the like. A family has at most 1,000 series: those that are left out
// are counted in netport_ROLE_metrics_left_out.
package metrics

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// maxSeries bounds the series of a family: what reads them keeps each for weeks.
	maxSeries = 1000
	// maxLabel bounds a label's value, in bytes.
	maxLabel = 128
)

// Page is one answer to "what have you counted?". It belongs to who made it.
type Page struct {
	role     string
	families map[string]*Family
}

// NewPage returns a page of a role's daemon that has the version of its program and
// how the process is.
func NewPage(role, version string, started time.Time) *Page {
	p := &Page{role: role, families: make(map[string]*Family)}
	p.family("netport_build_info", gauge, "The program that answers.").Set(1, "role", role, "version", version)
	p.process(started)
	return p
}

type kind string

const (
	counter   kind = "counter"
	gauge     kind = "gauge"
	histogram kind = "histogram"
)

// Family is all series of one name.
type Family struct {
	name, help string
	kind       kind
	series     map[string]*series // by labels
}

// series is one value, or a histogram.
type series struct {
	count uint64 // of a counter
	value float64
	hist  *Snapshot
}

// Counter returns the family of what only rises, for as long as the daemon runs. Its
// name ends with _total.
func (p *Page) Counter(name, help string) *Family {
	return p.family(p.name(name), counter, help)
}

// Gauge returns the family of what is so now.
func (p *Page) Gauge(name, help string) *Family { return p.family(p.name(name), gauge, help) }

// Histogram adds a histogram.
func (p *Page) Histogram(name, help string, h Snapshot) {
	p.family(p.name(name), histogram, help).at(nil).hist = &h
}

func (p *Page) name(name string) string { return "netport_" + p.role + "_" + name }

func (p *Page) family(name string, k kind, help string) *Family {
	f := p.families[name]
	if f == nil {
		f = &Family{name: name, help: help, kind: k, series: make(map[string]*series)}
		p.families[name] = f
	}
	return f
}

// at returns the series with these labels: names and values in turn.
func (f *Family) at(labels []string) *series {
	key := string(appendLabels(nil, labels))
	s := f.series[key]
	if s == nil {
		s = &series{}
		f.series[key] = s
	}
	return s
}

// Add adds to a counter's series. Labels are names and values in turn.
func (f *Family) Add(n uint64, labels ...string) { f.at(labels).count += n }

// Seconds adds a time to a counter's series.
func (f *Family) Seconds(d time.Duration, labels ...string) { f.at(labels).value += d.Seconds() }

// AddAll adds counts by what happened, in words of our own, as one label more.
func (f *Family) AddAll(counts map[string]uint64, label string, labels ...string) {
	for what, n := range counts {
		f.Add(n, append([]string{label, Word(what)}, labels...)...)
	}
}

// Word makes words of our own into one, for a label: "timed out" is timed_out.
func Word(s string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(s))
}

// Set sets a gauge's series.
func (f *Family) Set(v float64, labels ...string) { f.at(labels).value = v }

// Time sets a gauge's series to a time, in Unix seconds; the zero time is left out.
func (f *Family) Time(t time.Time, labels ...string) {
	if !t.IsZero() {
		f.Set(float64(t.UnixMilli())/1000, labels...)
	}
}

// Is sets a gauge's series to 1 or 0.
func (f *Family) Is(yes bool, labels ...string) {
	v := 0.0
	if yes {
		v = 1
	}
	f.Set(v, labels...)
}

// AppendTo appends the page as text, sorted by name and labels. Families without a
// series are named all the same: so who reads the page sees what there may be.
func (p *Page) AppendTo(b []byte) []byte {
	left := p.Gauge("metrics_left_out", "Series that are not on this page because their family has too many.")
	for _, f := range p.families {
		if n := len(f.series) - maxSeries; n > 0 {
			left.Set(float64(n), "family", f.name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.families)) {
		b = p.families[name].appendTo(b)
	}
	return b
}

// String returns the page as text.
func (p *Page) String() string { return string(p.AppendTo(nil)) }

func (f *Family) appendTo(b []byte) []byte {
	b = append(b, "# HELP "+f.name+" "...)
	b = append(b, escapeHelp.Replace(f.help)...)
	b = append(b, "\n# TYPE "+f.name+" "+string(f.kind)+"\n"...)
	keys := slices.SortedFunc(maps.Keys(f.series), cmp.Compare[string])
	for _, labels := range keys[:min(len(keys), maxSeries)] {
		s := f.series[labels]
		if s.hist != nil {
			b = s.hist.appendTo(b, f.name)
			continue
		}
		b = appendName(b, f.name, labels)
		switch {
		case f.kind == counter && s.value == 0:
			b = strconv.AppendUint(b, s.count, 10)
		case f.kind == counter:
			b = appendFloat(b, s.value+float64(s.count))
		default:
			b = appendFloat(b, s.value)
		}
		b = append(b, '\n')
	}
	return b
}

// appendName appends a name, its labels as appendLabels has made them, and a space.
func appendName(b []byte, name, labels string) []byte {
	b = append(b, name...)
	if labels != "" {
		b = append(b, '{')
		b = append(b, labels...)
		b = append(b, '}')
	}
	return append(b, ' ')
}

func appendFloat(b []byte, v float64) []byte { return strconv.AppendFloat(b, v, 'g', -1, 64) }

var (
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	escapeLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// appendLabels appends labels as they stand between braces. Values may come from
// other machines: they are cut, made UTF-8 and escaped.
func appendLabels(b []byte, labels []string) []byte {
	for i := 0; i+1 < len(labels); i += 2 {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, labels[i]...)
		b = append(b, `="`...)
		b = append(b, escapeLabel.Replace(short(labels[i+1]))...)
		b = append(b, '"')
	}
	return b
}

func short(s string) string {
	if len(s) > maxLabel {
		s = s[:maxLabel]
		for len(s) > 0 { // not in the middle of a letter
			if r, n := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || n != 1 {
				break
			}
			s = s[:len(s)-1]
		}
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

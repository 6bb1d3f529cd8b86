package doctor

// State is how one thing is.
type State string

// The states.
const (
	OK      State = "ok"
	Warning State = "warning"
	Failed  State = "failed"
)

// Line is one thing that was looked at.
type Line struct {
	What  string `json:"what"`
	State State  `json:"state"`
	Text  string `json:"text"`
	Do    string `json:"do,omitempty"` // what to do; empty: nothing
}

// Need is how much something is needed.
type Need string

// The needs, the greatest first.
const (
	Needed  Need = "needed" // it does not work without
	Faster  Need = "faster" // with it
	Reserve Need = "reserve"
)

// Opening is what a firewall is to let out.
type Opening struct {
	Protocol string `json:"protocol"` // TCP or UDP
	Host     string `json:"host"`     // IP address, and the name in parentheses if it has one
	Ports    string `json:"ports"`    // one, or a range
	Need     Need   `json:"need"`
	Why      string `json:"why"`
}

// Report is what a person reads.
type Report struct {
	Lines []Line    `json:"lines"`
	Open  []Opening `json:"open"` // for the firewall's owner
}

// Failed reports whether something does not work.
func (r Report) Failed() bool {
	for _, l := range r.Lines {
		if l.State == Failed {
			return true
		}
	}
	return false
}

func (r *Report) add(what string, s State, text, do string) {
	r.Lines = append(r.Lines, Line{what, s, text, do})
}

func (r *Report) open(o Opening) {
	for i, had := range r.Open {
		if had.Protocol == o.Protocol && had.Host == o.Host && had.Ports == o.Ports {
			if o.Need == Needed {
				r.Open[i] = o
			}
			return
		}
	}
	r.Open = append(r.Open, o)
}

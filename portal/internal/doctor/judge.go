package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// maxOff is the difference of clocks that is worth a word, and stampLife how far a clock
	// may be ahead before the stamps of grants look ended (24 hours, dated back one).
	maxOff    = 5 * time.Minute
	stampLife = 23 * time.Hour
	// soon is when the end of a certificate is worth a word: that of its life which is
	// left, as a part.
	soon = 10
	// wantMTU is what a packet of 1,280 bytes needs, the least that IPv6 and QUIC ask for.
	wantMTU = 1280
)

// Judge says what the facts mean, in this order: the machine, the names, the servers, the
// relays, the ways there.
func Judge(f Facts) Report {
	r := Report{Lines: []Line{}, Open: []Opening{}}
	if f.Invalid != nil {
		r.add("configuration", Failed, oneLine(f.Invalid), "correct the file, then run doctor again: nothing else was looked at")
		return r
	}
	r.add("configuration", OK, f.Config, "")
	judgeFiles(&r, f)
	judgeCertificate(&r, f)
	judgeClock(&r, f)
	judgeDaemon(&r, f)
	for _, n := range f.Names {
		judgeName(&r, f, n)
	}
	judgeProxy(&r, f)
	judgeServers(&r, f)
	judgeRelays(&r, f)
	judgeTunnels(&r, f)
	judgeMTU(&r, f)
	judgeNAT(&r, f)
	judgeRouter(&r, f)
	return r
}

// oneLine is an error without the lines that show a place in a file.
func oneLine(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}

func judgeFiles(r *Report, f Facts) {
	var good []string
	for _, file := range f.Files {
		if file.Err == nil {
			good = append(good, file.What)
			continue
		}
		r.add(file.What, Failed, oneLine(file.Err), "see to "+file.Path+": the portal does not start with it, or keeps nothing")
	}
	if len(good) > 0 {
		r.add("files", OK, strings.Join(good, ", ")+": there, and nobody else's", "")
	}
}

// right is the time as far as a server has told it.
func (f Facts) right() time.Time {
	if f.Told {
		return f.Now.Add(-f.Ahead)
	}
	return f.Now
}

func judgeCertificate(r *Report, f Facts) {
	if f.Ends.IsZero() {
		return
	}
	const what = "certificate"
	now, left := f.right(), f.Ends.Sub(f.right())
	switch {
	case left <= 0 && f.Told:
		r.add(what, Failed, "ended at "+stamp(f.Ends), "run the portal: it is renewed as soon as a server is reached, if that still allows it; else join anew with a token")
	case left <= 0:
		r.add(what, Warning, "ended at "+stamp(f.Ends)+" by the clock of this machine", "look at that clock; if it is right, run the portal, which renews the certificate, or join anew with a token")
	case now.Before(f.Begins) && f.Told:
		r.add(what, Warning, "begins at "+stamp(f.Begins), "the clock of the machine that signs certificates may be ahead")
	case left < f.Ends.Sub(f.Begins)/soon:
		r.add(what, Warning, "ends soon, at "+stamp(f.Ends), "netport-portal status says why it was not renewed")
	default:
		r.add(what, OK, "until "+stamp(f.Ends), "")
	}
}

func judgeClock(r *Report, f Facts) {
	const what = "clock"
	if !f.Told {
		r.add(what, Warning, "not known: no server has told the time; here it is "+stamp(f.Now), "compare that with a watch, if nothing else is wrong")
		return
	}
	off := f.Ahead.Abs().Truncate(time.Second)
	word := "ahead of"
	if f.Ahead < 0 {
		word = "behind"
	}
	text := fmt.Sprintf("%v %s the server's", off, word)
	switch {
	case f.Ahead > stampLife || f.Now.After(f.Ends) && f.right().Before(f.Ends):
		r.add(what, Failed, text, "set it right (NTP): grants and certificates look as if they had ended")
	case off > maxOff:
		r.add(what, Warning, text, "set it right (NTP); the portal goes by the server's time where its own is behind")
	default:
		r.add(what, OK, "within "+max(off, time.Second).String()+" of the server's", "")
	}
}

func judgeDaemon(r *Report, f Facts) {
	const what = "daemon"
	switch {
	case f.Silent != nil:
		r.add(what, Warning, oneLine(f.Silent), "run doctor as the daemon's user or as root; if that is so, restart the daemon")
	case f.Daemon == nil:
		r.add(what, Warning, "it is not running", "start it: netport-portal run --config "+f.Config+", or systemctl start netport-portal")
	case !f.Daemon.Status.Server.Connected:
		r.add(what, Warning, "it runs, and has no connection to a server since "+stamp(f.Daemon.Status.Server.Since), "what is wrong below is why, else its log says it")
	default:
		s := f.Daemon.Status.Server
		r.add(what, OK, fmt.Sprintf("it runs, connected to %s at %s since %s", s.Name, s.Place(), stamp(s.Since)), "")
	}
}

// astray reports whether a name leads where no server is, and not to where one was.
func (f Facts) astray(host string) bool {
	i := slices.IndexFunc(f.Names, func(n Name) bool { return n.Host == host })
	if i < 0 || len(f.Names[i].Addrs) == 0 || len(f.Names[i].Earlier) == 0 {
		return false
	}
	n := f.Names[i]
	return !f.proves(host, false) && !slices.ContainsFunc(n.Addrs, func(a netip.Addr) bool { return slices.Contains(n.Earlier, a) })
}

// proves reports whether a server of that name has proven itself: where the name leads, or
// where it led before.
func (f Facts) proves(host string, earlier bool) bool {
	return slices.ContainsFunc(f.Servers, func(s Server) bool { return s.Host == host && s.Proven != "" && s.Earlier == earlier })
}

func judgeName(r *Report, f Facts, n Name) {
	what, state := "name "+n.Host, Failed
	if f.reached() {
		state = Warning
	}
	there := "is " + addrs(n.Addrs)
	switch {
	case n.Err != nil:
		text := "not found: " + oneLine(n.Err)
		if f.proves(n.Host, true) {
			text += "; the server is where it was before"
		}
		r.add(what, state, text, "see to this machine's name servers (/etc/resolv.conf), or name the server by its address")
	case f.astray(n.Host) && f.proves(n.Host, true):
		r.add(what, state, there+", where no server of this domain is; it still is at "+addrs(n.Earlier), "the name server lies, or its entry is wrong: have it corrected, or name the server by its address")
	case f.astray(n.Host):
		r.add(what, state, there+", where no server of this domain is; it was "+addrs(n.Earlier)+" before", "the name server lies, or the server has moved: ask its operator for the address")
	default:
		r.add(what, OK, fmt.Sprintf("%s (%s)", there, short(n.Took)), "")
	}
}

func addrs(list []netip.Addr) string {
	var texts []string
	for _, a := range list {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// short is a duration as people read it.
func short(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	case d < 10*time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return d.Truncate(time.Second).String()
}

// judgeRouter says whether the router helps to find direct paths. Where it does not, NATs may
// still be passed.
func judgeRouter(r *Report, f Facts) {
	const what = "port mapping"
	running := f.known().Status.Router.Text()
	switch {
	case !f.Maps:
		r.add(what, OK, "not wanted by the configuration (direct, port_mapping)", "")
	case running != "" && f.Protocol != "":
		r.add(what, OK, running, "")
	case f.Protocol != "":
		r.add(what, OK, fmt.Sprintf("the router maps ports by %s, while a tunnel looks for direct paths", f.Protocol), "")
	default:
		r.add(what, OK, fmt.Sprintf("none: %s; direct paths are looked for without it", oneLine(f.Unmapped)), "")
	}
}

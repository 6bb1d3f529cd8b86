// Package survive tests that forwarded connections outlive what carries them: relays and servers that are killed, stopped or
// silent, portals that are suspended or move to other addresses, NATs that forget, links that lose, delay and shrink. The
// real daemons run in a lab of package topo; one file holds one story and names the rows of the threat list (F) that it
// shows.
//
//	laptop --- home (NAT) ---+------- internet -------+--- office (NAT) --- factory
//	                         |      |           |
//	                      server  relay-1    relay-2
//
// Checked streams run in both directions over a connection that laptop has opened and one that factory has, and numbered
// datagrams there and back, while something breaks at a moment that dice choose. Nothing may be lost or doubled, and a
// stream may stand still no longer than the row allows, besides what the machine itself adds (traffic.Outcome.Slack).
//
// A home network that drops UDP, or TCP to the relays, decides over which kind of carrier a story is told. Portals look for
// direct paths only in the stories about these.
//
// Each story runs once or twice, and shortened, as one of all tests; the flag -full runs it as often and as long as the
// threat list says (make lab-soak). -lab.seed repeats the moments of a run that failed. TestSoak tells them one after another
// in one world, in an order that dice choose, for as long as -soak says (make soak).
package survive

// Package matrix tests which portals find a direct path to each other: behind no NAT, behind those that are met, behind two
// of them, behind one that both share, over IPv4 and IPv6, over UDP and over TCP where UDP is blocked. The real daemons run
// in a lab of package topo; every site of one side meets every site of the other.
//
//	a-0 --- NAT ---+                         +--- NAT --- b-0
//	a-1 --- NAT ---+------- internet --------+--- NAT --- b-1
//	...            |      |           |      |    ...
//	               +   server       relay    +
//
// A small theory (theory_test.go) says of each pair whether packets can get through at all, without guessing ports. What
// can be direct must be; what cannot must stay with the relay and carry its data. A stream in both directions and a flow of
// datagrams run from before the direct path is there until after; nothing may be lost or doubled, no gap may be longer than
// row F54 of the threat list allows, and the relay must see no more of what runs once it is direct.
//
// That the lab's NATs are what they are called, and that portals name them so, coturn's client says (names_test.go).
//
// Each test logs a table with a line for each pair. The flag -full has every pair meet 30 times, from portals and NATs that
// know nothing, of which 29 must be direct within three round trips after the path by the relay stood (make lab-soak).
package matrix

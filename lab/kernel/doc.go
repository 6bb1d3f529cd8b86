// Package kernel tests a relay that forwards in the kernel, with the real daemon on links of veth pairs.
//
//	left --- home (NAT) --+-- internet --+-- office (NAT) --- right
//	                      |      |       |
//	                   broker  relay  stranger
//
// Most tests have no portals: left and right hold the two legs of a session as sockets of their own, and the test plays
// the server (daemon.Broker). So what they send is what the relay has to carry, packet by packet. The others run the
// server and the portals, too (portals_test.go).
//
// One file holds one story, and names the rows of the threat list (T, F, G) that it shows. Where a row asks for numbers
// that take minutes, the tests run with smaller ones; the flag -full runs them whole (make lab-soak).
package kernel

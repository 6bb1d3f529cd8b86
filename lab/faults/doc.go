// Package faults tests what Netport does when something breaks and when somebody attacks: daemons killed, stopped and
// short of descriptors, networks gone silent, relays that lie, strangers and portals that mean harm. The real daemons
// run in a lab of package topo.
//
//	laptop --+                                               +-- factory
//	         +-- home (NAT) --+-- internet --+-- office (NAT) --+
//	                          |      |       |               +-- plc
//	                        server relay  stranger
//
// The entry portal runs on laptop, the exit portal on factory; services run on plc. One file holds one story, and
// names the rows of the threat list (T, F, B) that it shows.
//
// Where a row asks for numbers that take minutes, the tests run with smaller ones; the flag -full runs them whole
// (make lab-soak).
package faults

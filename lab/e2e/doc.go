// Package e2e tests Netport from outside: its three daemons in a lab of package topo, used by programs that no one here
// wrote (curl and nginx, ssh, psql, iperf3 and others) and by the meters of package meter.
//
//	laptop --+                                               +-- factory
//	         +-- home (NAT) --+-- internet --+-- office (NAT) --+
//	guest ---+                |              |               +-- plc
//	                        server         relay
//
// The entry portal runs on laptop, the exit portal on factory. A client uses a forward from laptop itself and from guest,
// for which laptop is the gateway. A service runs on plc, or on factory where only the machine itself can reach it.
//
// There is no code but tests: one file holds one story.
package e2e

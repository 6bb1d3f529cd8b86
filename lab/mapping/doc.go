// Package mapping tests what a portal has a home's router map for it, with miniupnpd as the router's part: by PCP, NAT-PMP
// and UPnP IGD. Both portals are behind NATs that let nothing else find a direct path. The real daemons run in a lab of
// package topo.
//
//	laptop --- home (symmetric NAT, miniupnpd) ---+--- server, relay
//	                                              +--- office (symmetric NAT, miniupnpd) --- factory
package mapping

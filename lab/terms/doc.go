// Package terms tests what a policy may say about a forward beside its ends, with the real daemons in a lab of package
// topo: several targets, the clients of a gateway, limits, and hours.
//
//	client, stranger --- gateway --- home (NAT) ---+--- internet ---+--- north, south
//	                                               |                |
//	                                             server           relay
package terms

// Package fleet tests what an operator of many devices lives by: they join with tokens, renew their certificates by
// themselves, move to another CA, and are cut off when they are revoked, while forwarded connections run. The real
// daemons run in a lab of package topo; one file holds one story and names the rows of the threat list that it shows.
//
//	laptop --- home (NAT) ---+--- internet ---+--- office (NAT) --- factory
//	                         |                |
//	                       server           relay
package fleet

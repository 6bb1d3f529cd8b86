/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What a packet is, and what becomes of those that the program does not forward.
 *
 *   not Ethernet with IPv4 or IPv6, or the wrong version in it        PASS
 *   VLAN tags                                                         PASS
 *   frame for a group or another host's MAC                           PASS
 *   destination is no address of the relay                            PASS
 *   neither TCP, UDP nor an ICMP error; not to a session port         PASS
 *   headers cut off before 8 bytes of TCP or UDP                      PASS
 *   IPv4 header checksum wrong                                        PASS
 *   IHL < 5                                                           DROP length
 *   not a first fragment                                              PASS
 *   first fragment (IPv6: also the only one) to a session port        DROP fragment
 *   IP options or extension headers, TCP to a packet port             DROP options
 *   the same, anything else                                           PASS
 *   more than 8 extension headers (RFC 8504, section 5.3)             DROP options
 *   IP, UDP or TCP length that lies                                   DROP length
 *   UDP with the STUN cookie                                          PASS
 *   source that no host may have, or the relay's own                  DROP source
 *   UDP without a flow; TCP to a session port that is no packet port  PASS
 *   TCP to a packet port, SYN or without a flow, source admitted      to the daemon
 *   the same, source not admitted                                     DROP stranger
 *
 * What passes to the stack meets its checks, the sockets of user space, and no
 * listener on a packet port. A bare UDP length that is smaller than the IP
 * payload is legal and kept (RFC 9868). A UDP or TCP checksum is not verified but
 * changed, so one that was wrong stays wrong and the receiver sees it.
 * IPv4 and IPv6 packets over 64 KB (BIG TCP, off unless asked for) count as lies.
 */
#ifndef NETPORT_PARSE_H
#define NETPORT_PARSE_H

#include "checksum.h"
#include "hook.h"

#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>

#define STUN_COOKIE 0x2112a442 /* RFC 8489, section 5 */
#define MAX_EXTENSIONS 8

#define IP_MORE 0x2000
#define IP_OFFSET 0x1fff

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04

struct packet {
	struct flow_key key;
	struct address to;
	__u32 length;	/* from the IP header to the end of what it says */
	__u32 frame;	/* from the Ethernet header, with what is behind */
	__u32 payload;	/* of the transport */
	__u32 segments; /* packets on the wire */
	__u32 largest;	/* of them, from the IP header on */
	__u16 local;	/* key.local in host order */
	__u8 ttl;
	__u8 tcp_flags;
	__u8 unchecked; /* UDP over IPv6 without a checksum */
};

static __always_inline __u32 ip_header(int version)
{
	return version == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

static __always_inline void map_ipv4(__be32 to[4], __be32 addr)
{
	to[0] = 0;
	to[1] = 0;
	to[2] = bpf_htonl(0xffff);
	to[3] = addr;
}

static __always_inline void copy_addr(__be32 to[4], const __be32 from[4])
{
	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
	to[3] = from[3];
}

/* Of two addresses of one IP version, in which IPv4 differs only at the end. */
static __always_inline int same(int version, const __be32 a[4], const __be32 b[4])
{
	if (version == 4)
		return a[3] == b[3];
	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]));
}

static __always_inline int is_session_port(__u16 port)
{
	return port >= session_first && port <= session_last;
}

static __always_inline int is_packet_port(__u16 port)
{
	return port >= packet_first && port <= packet_last;
}

static __always_inline int is_ours(const struct address *a)
{
	return bpf_map_lookup_elem(&own_index, a) != NULL;
}

/* No host sends from these (RFC 6890): what says so is forged. */
static __always_inline int is_martian(int version, const __be32 a[4])
{
	if (version == 4) {
		__u8 first = bpf_ntohl(a[3]) >> 24;

		return first == 0 || first == 127 || first >= 224;
	}
	if ((a[0] | a[1]) == 0 && a[2] == 0 && bpf_ntohl(a[3]) <= 1)
		return 1;
	return (bpf_ntohl(a[0]) >> 24) == 0xff;
}

/* An IPv6 packet from ::ffff:a.b.c.d would be taken for one from a.b.c.d. */
static __always_inline int is_mapped(const __be32 a[4])
{
	return (a[0] | a[1]) == 0 && a[2] == bpf_htonl(0xffff);
}

/* What there is to say of TCP and UDP behind IP options, extension headers or in
 * fragments: never forwarded. `offset` is where its ports are. */
static __always_inline int odd_transport(void *ctx, enum hook hook, __u8 protocol, __u32 offset,
					 int fragment, const struct address *to)
{
	__be16 ports[2];

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return pass(hook);
	if (load(ctx, hook, offset, ports, sizeof(ports)))
		return pass(hook);

	__u16 local = bpf_ntohs(ports[1]);

	if (!is_session_port(local) || !is_ours(to))
		return pass(hook);
	if (fragment)
		return drop(hook, DROP_FRAGMENT);
	if (protocol == IPPROTO_TCP && is_packet_port(local))
		return drop(hook, DROP_OPTIONS);
	return pass(hook);
}

/* An IPv4 packet with options, or a fragment. */
static __always_inline int odd_ipv4(void *ctx, enum hook hook, const struct iphdr *ip,
				    struct packet *p)
{
	__u16 part = bpf_ntohs(ip->frag_off);
	__u32 ihl = ip->ihl;
	__u8 protocol = ip->protocol;

	map_ipv4(p->to.addr, ip->daddr);
	if (ip->version != 4)
		return pass(hook);
	if (ihl < 5)
		return is_ours(&p->to) ? drop(hook, DROP_LENGTH) : pass(hook);
	if (part & IP_OFFSET)
		return pass(hook);
	return odd_transport(ctx, hook, protocol, sizeof(struct ethhdr) + 4 * ihl, part & IP_MORE, &p->to);
}

/* An IPv6 packet with extension headers. */
static __always_inline int odd_ipv6(void *ctx, enum hook hook, const struct ipv6hdr *ip,
				    struct packet *p)
{
	__u32 offset = sizeof(struct ethhdr) + sizeof(struct ipv6hdr);
	__u8 next = ip->nexthdr;
	int fragment = 0;

	copy_addr(p->to.addr, ip->daddr.in6_u.u6_addr32);
	for (int i = 0; i <= MAX_EXTENSIONS; i++) {
		__u8 header[4];

		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_FRAGMENT:
			break;
		default:
			return odd_transport(ctx, hook, next, offset, fragment, &p->to);
		}
		if (load(ctx, hook, offset, header, sizeof(header)))
			return pass(hook);
		if (next == IPPROTO_FRAGMENT) {
			if (header[2] || header[3] & 0xf8)
				return pass(hook);
			fragment = 1;
			offset += 8;
		} else {
			offset += 8 + 8 * header[1];
		}
		next = header[0];
	}
	return is_ours(&p->to) ? drop(hook, DROP_OPTIONS) : pass(hook);
}

#endif

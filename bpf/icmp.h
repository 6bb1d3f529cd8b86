/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * ICMP errors about packets that the relay sent for a flow. They come to the relay
 * and are meant for the leg that those packets came from, which must find in them
 * what it sent itself. Anything else is the stack's: other types, quotes that are
 * cut off before the ports, quotes of other flows, errors about errors.
 */
#ifndef NETPORT_ICMP_H
#define NETPORT_ICMP_H

#include "rewrite.h"

/* The kernel's own headers of these names want a C library. */
#define ICMP_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMP_FRAG_NEEDED 4 /* code of UNREACHABLE */

#define ICMPV6_UNREACHABLE 1
#define ICMPV6_TOO_BIG 2
#define ICMPV6_TIME_EXCEEDED 3
#define ICMPV6_PARAMETER_PROBLEM 4

/* Of errors, ICMP and ICMPv6 alike. */
struct icmp_header {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be16 unused;
	__be16 mtu;
};
struct icmpv6_header {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 mtu;
};

/* What a path must take (RFC 791 has 576 for hosts, RFC 8200 1,280 for links). A
 * smaller figure is a forgery or a mistake that would make a flow crawl. */
#define FLOOR_IPV4 576
#define FLOOR_IPV6 1280

/* An error quotes at least this much of TCP or UDP: the ports, and UDP's checksum. */
#define QUOTED 8

static __always_inline int is_error(int version, __u8 type)
{
	if (version == 4)
		return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED ||
		       type == ICMP_PARAMETER_PROBLEM;
	return type == ICMPV6_UNREACHABLE || type == ICMPV6_TOO_BIG ||
	       type == ICMPV6_TIME_EXCEEDED || type == ICMPV6_PARAMETER_PROBLEM;
}

/* The largest packet that an error names is never under the floor. */
static __always_inline __u64 raise_mtu(int version, void *header)
{
	if (version == 4) {
		struct icmp_header *icmp = header;
		__be16 was = icmp->mtu;

		if (icmp->type != ICMP_UNREACHABLE || icmp->code != ICMP_FRAG_NEEDED ||
		    bpf_ntohs(was) >= FLOOR_IPV4)
			return 0;
		icmp->mtu = bpf_htons(FLOOR_IPV4);
		return change16(was, icmp->mtu);
	}

	struct icmpv6_header *icmp = header;
	__be32 was = icmp->mtu;

	if (icmp->type != ICMPV6_TOO_BIG || bpf_ntohl(was) >= FLOOR_IPV6)
		return 0;
	icmp->mtu = bpf_htonl(FLOOR_IPV6);
	return change32(was, icmp->mtu);
}

/* Adapts the quoted checksum of TCP or UDP, and returns what that changes itself. */
static __always_inline __u64 rewrite_check(__sum16 *check, int tcp, __u64 change)
{
	__sum16 was = *check;

	if (!tcp && !was)
		return 0;
	*check = tcp ? changed(was, change) : changed_udp(was, change);
	return change16(was, *check);
}

/* Gives the error to the leg: the quoted packet has the addresses and ports with
 * which the leg sent it, from the flow's peer to `own` and the port peer_local,
 * and the error comes from `own`. 0 if it is ready to be sent. */
static __always_inline int rewrite_error(void *ctx, enum hook hook, int version, const struct packet *p,
					 const struct flow_key *key, const struct flow *f,
					 const struct address *own, enum way way,
					 const struct bpf_fib_lookup *r)
{
	const __u32 icmp_at = sizeof(struct ethhdr) + ip_header(version);
	const __u32 quote_at = icmp_at + sizeof(struct icmp_header);
	const __u32 ports_at = quote_at + ip_header(version);
	const __u32 tcp_check_at = ports_at + __builtin_offsetof(struct tcphdr, check);
	const __u32 udp_check_at = ports_at + __builtin_offsetof(struct udphdr, check);
	void *data = frame(ctx, hook, ports_at + QUOTED);
	__u64 quoted, change;
	__be16 *port;

	if (!data)
		return -1;
	if (version == 4) {
		struct iphdr *ip = data + quote_at;
		__sum16 was = ip->check;

		quoted = change32(p->to.addr[3], f->peer[3]) + change32(key->addr[3], own->addr[3]);
		ip->saddr = f->peer[3];
		ip->daddr = own->addr[3];
		ip->check = changed(was, quoted);
		change = quoted + change16(was, ip->check);
	} else {
		struct ipv6hdr *ip = data + quote_at;
		__u64 source = change128(p->to.addr, f->peer);

		quoted = source + change128(key->addr, own->addr);
		/* ICMPv6's checksum covers the addresses around the quote, too. */
		change = quoted + source + change128(p->key.addr, own->addr);
		spill_nothing();
		copy_addr(ip->saddr.in6_u.u6_addr32, f->peer);
		copy_addr(ip->daddr.in6_u.u6_addr32, own->addr);
	}
	spill_nothing();
	port = data + ports_at;
	port[0] = f->peer_port;
	port[1] = f->peer_local;
	quoted += change16(key->local, f->peer_port) + change16(key->port, f->peer_local);
	change += change16(key->local, f->peer_port) + change16(key->port, f->peer_local);

	/* UDP's checksum is among the bytes that are always quoted, TCP's is not. */
	if (key->protocol == IPPROTO_UDP) {
		change += rewrite_check(data + udp_check_at, 0, quoted);
	} else if (p->length >= tcp_check_at + sizeof(__sum16) - sizeof(struct ethhdr)) {
		data = frame(ctx, hook, tcp_check_at + sizeof(__sum16));
		if (!data)
			return -1;
		change += rewrite_check(data + tcp_check_at, 1, quoted);
	}

	data = frame(ctx, hook, quote_at);
	if (!data)
		return -1;

	struct icmp_header *icmp = data + icmp_at;

	change += raise_mtu(version, icmp);
	icmp->checksum = changed(icmp->checksum, change);
	if (version == 4)
		rewrite_ipv4(data + sizeof(struct ethhdr), own->addr[3], f->peer[3]);
	else
		rewrite_ipv6(data + sizeof(struct ethhdr), own->addr, f->peer);
	address_frame(data, way, r);
	keep_sum(ctx, hook, version, 0);
	return 0;
}

static __always_inline int relay_error_of(void *ctx, enum hook hook, int version,
					  const struct packet *p, struct bpf_fib_lookup *r)
{
	const __u32 icmp_at = sizeof(struct ethhdr) + ip_header(version);
	const __u32 quote_at = icmp_at + sizeof(struct icmp_header);
	const __u32 ports_at = quote_at + ip_header(version);
	void *data = frame(ctx, hook, ports_at + QUOTED);
	const struct icmp_header *icmp = data + icmp_at;
	struct flow_key key = {};
	int sent;
	const __be16 *port;

	if (!data || p->length < ports_at + QUOTED - sizeof(struct ethhdr) ||
	    !is_error(version, icmp->type))
		return pass(hook);

	/* The flow of the answers to the quoted packet leads to who sent it. */
	if (version == 4) {
		const struct iphdr *ip = data + quote_at;

		if (ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(IP_OFFSET))
			return pass(hook);
		key.protocol = ip->protocol;
		map_ipv4(key.addr, ip->daddr);
		sent = ip->saddr == p->to.addr[3];
	} else {
		const struct ipv6hdr *ip = data + quote_at;

		if (ip->version != 6)
			return pass(hook);
		key.protocol = ip->nexthdr;
		copy_addr(key.addr, ip->daddr.in6_u.u6_addr32);
		sent = same(6, ip->saddr.in6_u.u6_addr32, p->to.addr) && !is_mapped(key.addr);
	}
	if (key.protocol != IPPROTO_TCP && key.protocol != IPPROTO_UDP)
		return pass(hook);
	port = data + ports_at;
	key.local = port[0];
	key.port = port[1];
	if (!sent || !is_session_port(bpf_ntohs(key.local)) ||
	    is_martian(version, p->key.addr) || !is_addressed_to_us(ctx, hook, data))
		return pass(hook);

	const struct flow *f = find_flow(version, &key, &p->to);
	if (!f)
		return pass(hook);

	const struct address *from = own_address(f->peer_own);
	struct slot *slot = find_slot(f);
	__u64 now = coarse_now();

	if (!from || !slot || death(f, slot, now))
		return pass(hook);
	if (p->ttl <= 1)
		return drop(hook, DROP_TTL);
	if (!may_send_error(&slot->from[f->direction & 1], now))
		return drop(hook, DROP_RATE_LIMIT);

	enum way way = find_way(ctx, hook, version, p, f, from, r);
	if (way == NO_WAY || way == TOLD)
		return gone(hook);
	if (p->frame > sizeof(struct ethhdr) + p->length &&
	    cut(ctx, hook, sizeof(struct ethhdr) + p->length, p->frame))
		return drop(hook, DROP_HELPER);

	if (rewrite_error(ctx, hook, version, p, &key, f, from, way, r))
		return give_up(hook);
	return send(ctx, hook, version, way, r);
}

/* Functions of their own: errors are rare, and all of this would lie on the stack
 * of the packets that are not. */
static __noinline int relay_error_xdp4(struct xdp_md *ctx, const struct packet *p, struct bpf_fib_lookup *r)
{
	return relay_error_of(ctx, XDP, 4, p, r);
}

static __noinline int relay_error_xdp6(struct xdp_md *ctx, const struct packet *p, struct bpf_fib_lookup *r)
{
	return relay_error_of(ctx, XDP, 6, p, r);
}

static __noinline int relay_error_tc4(struct __sk_buff *skb, const struct packet *p, struct bpf_fib_lookup *r)
{
	return relay_error_of(skb, TC, 4, p, r);
}

static __noinline int relay_error_tc6(struct __sk_buff *skb, const struct packet *p, struct bpf_fib_lookup *r)
{
	return relay_error_of(skb, TC, 6, p, r);
}

static __always_inline int relay_error(void *ctx, enum hook hook, int version, const struct packet *p,
				       struct bpf_fib_lookup *r)
{
	if (hook == XDP)
		return version == 4 ? relay_error_xdp4(ctx, p, r) : relay_error_xdp6(ctx, p, r);
	return version == 4 ? relay_error_tc4(ctx, p, r) : relay_error_tc6(ctx, p, r);
}

#endif

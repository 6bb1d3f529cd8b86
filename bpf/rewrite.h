/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The change that makes the relay: addresses, ports, TTL and checksums.
 *
 * In tc the checksum of TCP or UDP may not be finished yet (CHECKSUM_PARTIAL, and
 * always so in GSO packets), which only the kernel's helpers know. Everything else
 * is written in one way by both hooks.
 */
#ifndef NETPORT_REWRITE_H
#define NETPORT_REWRITE_H

#include "flow.h"
#include "route.h"

static __always_inline void rewrite_ipv4(struct iphdr *ip, __be32 from, __be32 to)
{
	__u64 change = change32(ip->saddr, from) + change32(ip->daddr, to) +
		       change16(bpf_htons(0x0100), 0);

	ip->saddr = from;
	ip->daddr = to;
	ip->ttl--;
	ip->check = changed(ip->check, change);
}

static __always_inline void rewrite_ipv6(struct ipv6hdr *ip, const __be32 from[4], const __be32 to[4])
{
	copy_addr(ip->saddr.in6_u.u6_addr32, from);
	spill_nothing();
	copy_addr(ip->daddr.in6_u.u6_addr32, to);
	ip->hop_limit--;
}

/* The sum over an IPv6 packet that a network card left with it (CHECKSUM_COMPLETE)
 * is the kernel's to keep right. It takes a change of addresses to be made up for
 * in an IP header, as it is in IPv4. */
static __always_inline void keep_sum(void *ctx, enum hook hook, int version, __u64 addresses)
{
	if (hook == TC && version == 6)
		bpf_csum_update(ctx, fold32(addresses + change16(bpf_htons(1), 0)));
}

static __always_inline __u64 change_addresses(int version, const struct packet *p, const struct flow *f,
					      const struct address *from)
{
	if (version == 4)
		return change32(p->key.addr[3], from->addr[3]) + change32(p->to.addr[3], f->peer[3]);
	return change128(p->key.addr, from->addr) + change128(p->to.addr, f->peer);
}

/* The same for TCP and UDP, of which `tcp` is a constant, so that every offset is one. */
static __always_inline int rewrite_transport(void *ctx, enum hook hook, int version, int tcp,
					     const struct packet *p, const struct flow *f,
					     const struct address *from, enum way way,
					     const struct bpf_fib_lookup *r)
{
	const __u32 transport = sizeof(struct ethhdr) + ip_header(version);
	const __u32 check_at = transport + (tcp ? __builtin_offsetof(struct tcphdr, check)
						: __builtin_offsetof(struct udphdr, check));
	const __u32 headers = transport + (tcp ? sizeof(struct tcphdr) : sizeof(struct udphdr));
	const __u64 addresses = change_addresses(version, p, f, from);
	const __u64 ports = change16(p->key.port, f->peer_local) + change16(p->key.local, f->peer_port);
	void *data = frame(ctx, hook, headers);
	__sum16 *check;
	__be16 *port;

	spill_nothing();
	if (!data)
		return -1;
	check = data + check_at;
	if (tcp || *check) {
		if (hook == XDP) {
			*check = tcp ? changed(*check, addresses + ports)
				     : changed_udp(*check, addresses + ports);
		} else {
			const __u64 flags = tcp ? 0 : BPF_F_MARK_MANGLED_0;

			if (bpf_l4_csum_replace(ctx, check_at, 0, fold32(addresses),
						flags | BPF_F_PSEUDO_HDR) ||
			    bpf_l4_csum_replace(ctx, check_at, 0, fold32(ports), flags))
				return -1;
			keep_sum(ctx, hook, version, addresses);
			data = frame(ctx, hook, headers);
			if (!data)
				return -1;
		}
	} else if (hook == TC) {
		bpf_csum_update(ctx, fold32(ports)); /* which no checksum makes up for */
	}
	port = data + transport;
	port[0] = f->peer_local;
	port[1] = f->peer_port;
	if (version == 4)
		rewrite_ipv4(data + sizeof(struct ethhdr), from->addr[3], f->peer[3]);
	else
		rewrite_ipv6(data + sizeof(struct ethhdr), from->addr, f->peer);
	address_frame(data, way, r);
	return 0;
}

/* 0 if the packet is ready to be sent. */
static __always_inline int rewrite(void *ctx, enum hook hook, int version, const struct packet *p,
				   const struct flow *f, const struct address *from, enum way way,
				   const struct bpf_fib_lookup *r)
{
	return p->key.protocol == IPPROTO_TCP
		       ? rewrite_transport(ctx, hook, version, 1, p, f, from, way, r)
		       : rewrite_transport(ctx, hook, version, 0, p, f, from, way, r);
}

#endif

//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The relay in the kernel: a packet that comes from a leg's address to the leg's
 * port is sent on to the other leg, and nothing but addresses, ports, TTL and
 * checksums changes. Once for XDP, once for tc; both do the same to the same packet.
 *
 *     parse     what it is, and what is not the program's business   parse.h
 *     look up   its flow, and whether that lives                     flow.h
 *     find      the way to the other leg                             route.h
 *     rewrite   and send                                             rewrite.h
 *     or tell   the daemon                                           event.h
 *     errors    of the network about what was sent                   icmp.h
 *
 * The daemon decides; it writes the tables of maps.h.
 */
#include "maps.h"

#include "icmp.h"

/* A length that lies, in a packet that is for the relay. */
static __always_inline int lie(enum hook hook, const struct packet *p)
{
	return is_ours(&p->to) ? drop(hook, DROP_LENGTH) : pass(hook);
}

/* A packet to a session port that belongs to no flow, or opens a connection. */
static __always_inline int without_flow(void *ctx, enum hook hook, int version, const struct packet *p)
{
	if (!is_ours(&p->to))
		return pass(hook);
	if (is_martian(version, p->key.addr) || (version == 6 && is_mapped(p->key.addr)) ||
	    is_ours((const struct address *)p->key.addr))
		return drop(hook, DROP_FORBIDDEN_SOURCE);
	if (p->key.protocol == IPPROTO_UDP || !is_packet_port(p->local))
		return pass(hook);

	struct admission a = { .block = p->local & ~(BLOCK_PORTS - 1) };

	copy_addr(a.addr, p->key.addr);
	if (!bpf_map_lookup_elem(&admitted, &a))
		return drop(hook, DROP_UNKNOWN_SOURCE);
	tell(ctx, hook, p->length, EVENT_HANDSHAKE,
	     p->tcp_flags & TCP_SYN ? REASON_SYN : REASON_NO_FLOW, 0);
	return gone(hook);
}

static __always_inline int forward(void *ctx, enum hook hook, int version, const struct packet *p,
				   const struct flow *f, struct bpf_fib_lookup *r)
{
	const struct address *from = own_address(f->peer_own);
	struct slot *slot = find_slot(f);
	__u64 now = coarse_now();
	enum drop_reason reason;
	struct direction *d;

	if (!from || !slot)
		return drop(hook, DROP_STALE);
	reason = death(f, slot, now);
	if (reason)
		return drop(hook, reason);
	if (p->ttl <= 1)
		return drop(hook, DROP_TTL);
	d = &slot->from[f->direction & 1];
	if (!is_within_rate(d, p, now))
		return drop(hook, DROP_RATE_LIMIT);

	enum way way = find_way(ctx, hook, version, p, f, from, r);

	if (way == NO_WAY)
		return gone(hook);
	if (way != TOLD) {
		/* Nothing that is behind the packet leaves with it. */
		if (p->frame > sizeof(struct ethhdr) + p->length &&
		    cut(ctx, hook, sizeof(struct ethhdr) + p->length, p->frame))
			return drop(hook, DROP_HELPER);
		if (rewrite(ctx, hook, version, p, f, from, way, r))
			return give_up(hook);
	}
	count(hook, d, p, now);
	return way == TOLD ? gone(hook) : send(ctx, hook, version, way, r);
}

/* A packet of TCP or UDP to a session port. */
static __always_inline int relay_transport(void *ctx, enum hook hook, int version, struct packet *p,
					   struct bpf_fib_lookup *r)
{
	const __u32 transport = sizeof(struct ethhdr) + ip_header(version);
	const __u32 room = p->length - ip_header(version);
	const struct flow *f;
	void *data;

	if (p->key.protocol == IPPROTO_UDP) {
		const struct udphdr *udp;
		__u32 length;

		data = frame(ctx, hook, transport + sizeof(*udp));
		if (!data)
			return pass(hook);
		udp = data + transport;
		length = bpf_ntohs(udp->len);
		if (length < sizeof(*udp) || length > room)
			return lie(hook, p);
		p->payload = length - sizeof(*udp);
		if (version == 6 && !udp->check)
			p->unchecked = 1;
		if (p->payload >= 8) {
			const __be32 *cookie;

			data = frame(ctx, hook, transport + sizeof(*udp) + 8);
			if (!data)
				return pass(hook);
			cookie = data + transport + sizeof(*udp) + 4;
			if (*cookie == bpf_htonl(STUN_COOKIE))
				return pass(hook);
		}
	} else {
		const __u8 *tcp;
		__u32 header;

		if (room < sizeof(struct tcphdr))
			return lie(hook, p);
		data = frame(ctx, hook, transport + sizeof(struct tcphdr));
		if (!data)
			return pass(hook);
		tcp = data + transport;
		header = (tcp[12] >> 4) * 4;
		if (header < sizeof(struct tcphdr) || header > room)
			return lie(hook, p);
		p->payload = room - header;
		p->tcp_flags = tcp[13];
		if (!is_packet_port(p->local))
			return without_flow(ctx, hook, version, p);
	}
	if (hook == TC) {
		__u32 size = ((struct __sk_buff *)ctx)->gso_size;

		if (size && p->payload > size) {
			p->segments = (p->payload + size - 1) / size;
			p->largest = p->length - p->payload + size;
		}
	}
	if (version == 6 && is_mapped(p->key.addr))
		return without_flow(ctx, hook, version, p);
	f = find_flow(version, &p->key, &p->to);
	if (!f || p->tcp_flags & TCP_SYN)
		return without_flow(ctx, hook, version, p);
	if (p->unchecked)
		return drop(hook, DROP_CHECKSUM);
	return forward(ctx, hook, version, p, f, r);
}

static __always_inline int relay_ip(void *ctx, enum hook hook, int version)
{
	const __u32 transport = sizeof(struct ethhdr) + ip_header(version);
	void *data = frame(ctx, hook, transport + 8);
	struct packet p = { .segments = 1 };
	struct bpf_fib_lookup route;
	int error = 0;

	if (!data)
		return pass(hook);
	if (version == 4) {
		const struct iphdr *ip = data + sizeof(struct ethhdr);

		if (unlikely(ip->version != 4 || ip->ihl != 5 ||
			     ip->frag_off & bpf_htons(IP_MORE | IP_OFFSET)))
			return is_addressed_to_us(ctx, hook, data) ? odd_ipv4(ctx, hook, ip, &p)
								   : pass(hook);
		p.key.protocol = ip->protocol;
		error = ip->protocol == IPPROTO_ICMP;
	} else {
		const struct ipv6hdr *ip = data + sizeof(struct ethhdr);

		if (unlikely(ip->version != 6))
			return pass(hook);
		p.key.protocol = ip->nexthdr;
		error = ip->nexthdr == IPPROTO_ICMPV6;
	}
	if (!error) {
		const __be16 *port = data + transport;

		if (p.key.protocol != IPPROTO_TCP && p.key.protocol != IPPROTO_UDP)
			return version == 4 || !is_addressed_to_us(ctx, hook, data)
				       ? pass(hook)
				       : odd_ipv6(ctx, hook, data + sizeof(struct ethhdr), &p);
		p.key.port = port[0];
		p.key.local = port[1];
		p.local = bpf_ntohs(port[1]);
		if (!is_session_port(p.local))
			return pass(hook);
	}
	if (!is_addressed_to_us(ctx, hook, data))
		return pass(hook);
	if (version == 4) {
		const struct iphdr *ip = data + sizeof(struct ethhdr);
		const __u32 *word = (const void *)ip;

		if (fold16((__u64)word[0] + word[1] + word[2] + word[3] + word[4]) != 0xffff)
			return pass(hook);
		map_ipv4(p.key.addr, ip->saddr);
		map_ipv4(p.to.addr, ip->daddr);
		p.ttl = ip->ttl;
		p.length = bpf_ntohs(ip->tot_len);
	} else {
		const struct ipv6hdr *ip = data + sizeof(struct ethhdr);

		copy_addr(p.key.addr, ip->saddr.in6_u.u6_addr32);
		copy_addr(p.to.addr, ip->daddr.in6_u.u6_addr32);
		p.ttl = ip->hop_limit;
		p.length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	}
	p.largest = p.length;
	p.frame = frame_length(ctx, hook);
	if (p.length < ip_header(version) + 8 || p.length > p.frame - sizeof(struct ethhdr))
		return error ? pass(hook) : lie(hook, &p);
	return error ? relay_error(ctx, hook, version, &p, &route)
		     : relay_transport(ctx, hook, version, &p, &route);
}

static __always_inline int relay(void *ctx, enum hook hook)
{
	const struct ethhdr *eth = frame(ctx, hook, sizeof(*eth));

	if (!eth)
		return pass(hook);
	switch (eth->h_proto) {
	case bpf_htons(ETH_P_IP):
		return relay_ip(ctx, hook, 4);
	case bpf_htons(ETH_P_IPV6):
		return relay_ip(ctx, hook, 6);
	}
	return pass(hook);
}

SEC("xdp.frags")
int relay_xdp(struct xdp_md *ctx)
{
	return relay(ctx, XDP);
}

SEC("tc")
int relay_tc(struct __sk_buff *skb)
{
	return relay(skb, TC);
}

char relay_license[] SEC("license") = "GPL";

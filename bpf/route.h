/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The way to the other leg. It is found before the packet is changed, so that what
 * the program cannot send goes to the daemon as it came.
 */
#ifndef NETPORT_ROUTE_H
#define NETPORT_ROUTE_H

#include "event.h"

#define AF_INET 2
#define AF_INET6 10

enum way {
	NO_WAY,	   /* the packet is gone: told or counted */
	TOLD,	   /* the same, and the daemon sends it */
	BACK,	   /* where it came from */
	NEXT_HOP,  /* to the MAC address that the kernel knew */
	NEIGHBOUR, /* to a next hop that the kernel has to ask for; tc only */
	OUT,	   /* by this interface, the kernel finds the next hop; tc only */
};

static __always_inline enum way ask_daemon(void *ctx, enum hook hook, const struct packet *p,
					   enum event_reason reason)
{
	return tell(ctx, hook, p->length, EVENT_FORWARD, reason, 0) ? TOLD : NO_WAY;
}

static __always_inline enum way too_big(void *ctx, enum hook hook, const struct packet *p, __u32 mtu)
{
	tell(ctx, hook, p->length, EVENT_TOO_BIG, REASON_MTU, mtu);
	return NO_WAY;
}

/* A host that does not forward has no answer for a packet that arrives, unless
 * there is an asker. The daemon may know the interface from the routes of what it
 * sends itself. */
static __always_inline enum way out(void *ctx, enum hook hook, const struct packet *p,
				    const struct flow *f, struct bpf_fib_lookup *r)
{
	__u32 mtu = p->largest;

	if (hook == XDP || !f->ifindex)
		return ask_daemon(ctx, hook, p, REASON_FORWARDING);
	switch (bpf_check_mtu(ctx, f->ifindex, &mtu, 0, 0)) {
	case BPF_MTU_CHK_RET_SUCCESS:
		r->ifindex = f->ifindex;
		return OUT;
	case BPF_MTU_CHK_RET_FRAG_NEEDED:
	case BPF_MTU_CHK_RET_SEGS_TOOBIG:
		return too_big(ctx, hook, p, mtu);
	}
	return ask_daemon(ctx, hook, p, REASON_ROUTE);
}

/* `r` is where to: the interface for every way, for NEXT_HOP with MAC addresses, for
 * NEIGHBOUR with the next hop's IP address. */
static __always_inline enum way find_way(void *ctx, enum hook hook, int version,
					 const struct packet *p, const struct flow *f,
					 const struct address *from, struct bpf_fib_lookup *r)
{
	__u32 arrived = arrived_on(ctx, hook);

	if (f->flags & FLOW_BACK && f->ifindex == arrived) {
		r->ifindex = arrived;
		return BACK;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->l4_protocol = p->key.protocol;
	r->sport = f->peer_local;
	r->dport = f->peer_port;
	r->tot_len = p->largest;
	r->ifindex = version == 4 ? asker4 : asker6;
	if (!r->ifindex)
		r->ifindex = arrived;
	if (version == 4) {
		r->family = AF_INET;
		r->ipv4_src = from->addr[3];
		r->ipv4_dst = f->peer[3];
	} else {
		r->family = AF_INET6;
		copy_addr(r->ipv6_src, from->addr);
		copy_addr(r->ipv6_dst, f->peer);
	}
	switch (bpf_fib_lookup(ctx, r, sizeof(*r), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		return NEXT_HOP;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		if (hook == XDP)
			return ask_daemon(ctx, hook, p, REASON_NEIGHBOUR);
		return NEIGHBOUR;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return too_big(ctx, hook, p, r->mtu_result);
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
		return out(ctx, hook, p, f, r);
	case BPF_FIB_LKUP_RET_BLACKHOLE:
	case BPF_FIB_LKUP_RET_UNREACHABLE:
	case BPF_FIB_LKUP_RET_PROHIBIT:
	case BPF_FIB_LKUP_RET_NOT_FWDED:
		count_drop(DROP_ROUTE);
		return NO_WAY;
	}
	return ask_daemon(ctx, hook, p, REASON_ROUTE);
}

_Static_assert(__builtin_offsetof(struct bpf_fib_lookup, ipv6_dst) ==
		       __builtin_offsetof(struct bpf_fib_lookup, ipv6_src) + 16,
	       "the next hop follows the source");

/* Writes the Ethernet header for ways on which the kernel does not. */
static __always_inline void address_frame(struct ethhdr *eth, enum way way, const struct bpf_fib_lookup *r)
{
	__u8 host[ETH_ALEN];

	switch (way) {
	case BACK:
		__builtin_memcpy(host, eth->h_dest, ETH_ALEN);
		__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
		__builtin_memcpy(eth->h_source, host, ETH_ALEN);
		break;
	case NEXT_HOP:
		__builtin_memcpy(eth->h_dest, r->dmac, ETH_ALEN);
		__builtin_memcpy(eth->h_source, r->smac, ETH_ALEN);
		break;
	default:
		break;
	}
}

static __always_inline int send(void *ctx, enum hook hook, int version, enum way way,
				struct bpf_fib_lookup *r)
{
	if (hook == XDP)
		return r->ifindex == arrived_on(ctx, hook) ? XDP_TX : bpf_redirect(r->ifindex, 0);
	if (way == OUT)
		return bpf_redirect_neigh(r->ifindex, NULL, 0, 0);
	if (way == NEIGHBOUR) {
		/* The word before the next hop is the end of an address that was needed
		 * only to find it. On the stack there is no room for another struct. */
		struct bpf_redir_neigh *hop = (void *)&r->ipv6_src[3];

		hop->nh_family = version == 4 ? AF_INET : AF_INET6;
		return bpf_redirect_neigh(r->ifindex, hop, sizeof(*hop), 0);
	}
	return bpf_redirect(r->ifindex, 0);
}

#endif

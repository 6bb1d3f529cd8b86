/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The flow of a packet, whether it still lives, whether it may send now, and what
 * it has sent.
 */
#ifndef NETPORT_FLOW_H
#define NETPORT_FLOW_H

#include "parse.h"

#define SECOND 1000000000ULL

/* How far a direction may run ahead of its rate, in ns. Go has the same figure. */
#define BURST (SECOND / 10)

/* ICMP errors of one direction: ten at once, then 100 a second; in ms. */
#define ERROR_COST 10
#define ERROR_BURST 100

/* The coarse clock moves once a jiffy. To ask what jiffy it is costs a load, to ask
 * for the time a call, so the time is kept for as long as it cannot change. Two
 * processors that write at once write the same, or a jiffy apart. */
static struct {
	__u64 jiffy, now;
} clock;

static __always_inline __u64 coarse_now(void)
{
	__u64 jiffy = bpf_jiffies64();

	if (unlikely(jiffy != clock.jiffy)) {
		clock.now = bpf_ktime_get_coarse_ns();
		clock.jiffy = jiffy;
	}
	return clock.now;
}

static __always_inline const struct address *own_address(__u32 number)
{
	return bpf_map_lookup_elem(&own_list, &number);
}

/* The flow of a key, if it is for the relay's address that the packet was sent to. */
static __always_inline const struct flow *find_flow(int version, const struct flow_key *key,
						    const struct address *to)
{
	const struct flow *f = bpf_map_lookup_elem(&flows, key);

	if (!f)
		return NULL;

	const struct address *own = own_address(f->own);

	return own && same(version, own->addr, to->addr) ? f : NULL;
}

static __always_inline struct slot *find_slot(const struct flow *f)
{
	__u32 number = f->slot;

	return bpf_map_lookup_elem(&slots, &number);
}

/* The differences are signed: the daemon's clock is finer than the coarse one that
 * is read here, and may be ahead of it. */
static __always_inline int is_silent(const struct direction *d, __u64 now)
{
	return (__s64)(now - d->seen) > (__s64)(d->lifetime * SECOND);
}

/* Why a key that is in the table leads nowhere, or 0. Both directions of a pair die
 * at once, by the generation of its slot or by its lifetime. */
static __always_inline enum drop_reason death(const struct flow *f, const struct slot *s, __u64 now)
{
	const struct direction *d = &s->from[f->direction & 1];

	if (unlikely(d->generation != f->generation))
		return DROP_STALE;
	if (unlikely(is_silent(d, now)) && is_silent(&s->from[!(f->direction & 1)], now))
		return DROP_EXPIRED;
	return 0;
}

/* The generic cell rate algorithm (ITU-T I.371): a packet is let through while the
 * time at which it would be due is no more than BURST ahead. */
static __always_inline int is_within_rate(struct direction *d, const struct packet *p, __u64 now)
{
	__u64 packets = d->packet_cost, kib = d->kib_cost;
	__u64 packet_due, byte_due;

	if (!(packets | kib))
		return 1;
	packet_due = d->packet_due > now ? d->packet_due : now;
	byte_due = d->byte_due > now ? d->byte_due : now;
	if ((packets && packet_due - now > BURST) || (kib && byte_due - now > BURST))
		return 0;
	if (packets)
		d->packet_due = packet_due + packets * p->segments;
	if (kib)
		d->byte_due = byte_due + ((kib * p->payload) >> 10);
	return 1;
}

/* Errors have a rate of their own, so that forged ones neither starve the flow nor
 * reach the other leg as a storm. The clock of 32 bits wraps after 49 days. */
static __always_inline int may_send_error(struct direction *d, __u64 now)
{
	__u32 ms = (__u32)(now / 1000000);
	__s32 ahead = (__s32)(d->error_due - ms);

	if (ahead < 0 || ahead > 2 * ERROR_BURST)
		ahead = 0;
	if (ahead >= ERROR_BURST)
		return 0;
	d->error_due = ms + ahead + ERROR_COST;
	return 1;
}

/* In XDP one queue, and so one processor, gets all packets of a direction. Before
 * tc they may come by several at once, from senders on the same machine. */
static __always_inline void count(enum hook hook, struct direction *d, const struct packet *p, __u64 now)
{
	if (hook == XDP) {
		d->packets += p->segments;
		d->bytes += p->payload;
	} else {
		__sync_fetch_and_add(&d->packets, p->segments);
		__sync_fetch_and_add(&d->bytes, p->payload);
	}
	d->seen = now;
	if (p->key.protocol == IPPROTO_TCP) {
		__u32 was = d->closed;
		__u32 closed = (was & CLOSED_FIN) | (p->tcp_flags & TCP_FIN ? CLOSED_FIN : 0) |
			       (p->tcp_flags & TCP_RST ? CLOSED_RST : 0);

		if (closed != was)
			d->closed = closed;
	}
}

#endif

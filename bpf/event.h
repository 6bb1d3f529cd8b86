/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Packets for the daemon. A record must have a size that the verifier knows, so
 * there are three: for handshakes and small data, for a packet of an ordinary
 * link, and for whatever IP can hold (a GSO packet before tc).
 */
#ifndef NETPORT_EVENT_H
#define NETPORT_EVENT_H

#include "parse.h"

#define RECORD_SMALL 256
#define RECORD_LINK 2048
#define RECORD_ANY 65600 /* 12 bytes of event, 40 of IPv6, 65,535 behind it */

static __always_inline int tell_sized(void *ctx, enum hook hook, __u32 ifindex, __u32 length,
				      __u32 kind, __u32 reason, __u32 mtu, const __u32 size)
{
	struct event *e = bpf_ringbuf_reserve(&events, size, 0);
	__u64 bytes = length;

	if (!e) {
		count_drop(DROP_RING_FULL);
		return 0;
	}
	e->ifindex = ifindex;
	e->length = length;
	e->kind = kind;
	e->reason = reason;
	e->mtu = mtu;
	/* The compiler knows these bounds, but the verifier has to see them, in the
	 * register that the helper gets. */
	asm volatile("" : "+r"(bytes));
	if (bytes == 0 || bytes > size - sizeof(*e) ||
	    load(ctx, hook, sizeof(struct ethhdr), e->packet, bytes)) {
		bpf_ringbuf_discard(e, 0);
		count_drop(DROP_HELPER);
		return 0;
	}
	bpf_ringbuf_submit(e, 0);
	return 1;
}

static __always_inline int tell_any(void *ctx, enum hook hook, __u32 length, enum event_kind kind,
				    enum event_reason reason, __u32 mtu)
{
	__u32 ifindex = arrived_on(ctx, hook);

	if (length <= RECORD_SMALL - sizeof(struct event))
		return tell_sized(ctx, hook, ifindex, length, kind, reason, mtu, RECORD_SMALL);
	if (length <= RECORD_LINK - sizeof(struct event))
		return tell_sized(ctx, hook, ifindex, length, kind, reason, mtu, RECORD_LINK);
	return tell_sized(ctx, hook, ifindex, length, kind, reason, mtu, RECORD_ANY);
}

/* Functions of their own, since many places tell and the code is large. */
static __noinline int tell_xdp(struct xdp_md *ctx, __u32 length, enum event_kind kind,
			       enum event_reason reason, __u32 mtu)
{
	return tell_any(ctx, XDP, length, kind, reason, mtu);
}

static __noinline int tell_tc(struct __sk_buff *skb, __u32 length, enum event_kind kind,
			      enum event_reason reason, __u32 mtu)
{
	return tell_any(skb, TC, length, kind, reason, mtu);
}

/* Whether the daemon will get the packet, which is `length` bytes long from the IP
 * header on and not changed yet. If not, it has been counted as dropped. */
static __always_inline int tell(void *ctx, enum hook hook, __u32 length, enum event_kind kind,
				enum event_reason reason, __u32 mtu)
{
	return hook == XDP ? tell_xdp(ctx, length, kind, reason, mtu)
			   : tell_tc(ctx, length, kind, reason, mtu);
}

#endif

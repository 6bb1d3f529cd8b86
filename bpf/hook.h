/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What differs between the two hooks. Everything above is written once, with the
 * hook as a constant that the compiler folds away.
 *
 * PASS leaves the packet to whoever comes next: other programs, then the stack.
 */
#ifndef NETPORT_HOOK_H
#define NETPORT_HOOK_H

#include "maps.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>

#define unlikely(x) __builtin_expect(!!(x), 0)

/* Lets the compiler forget what it has read, so that it reads it again instead of
 * keeping it on the stack, of which there are 512 bytes for all functions. */
#define spill_nothing() asm volatile("" ::: "memory")

enum hook { XDP, TC };

static __always_inline int pass(enum hook hook)
{
	return hook == XDP ? XDP_PASS : TC_ACT_UNSPEC;
}

/* The packet has gone to the daemon, or is counted already. */
static __always_inline int gone(enum hook hook)
{
	return hook == XDP ? XDP_DROP : TC_ACT_SHOT;
}

static __always_inline void count_drop(enum drop_reason reason)
{
	__u32 number = reason;
	__u64 *n = bpf_map_lookup_elem(&drops, &number);

	if (n)
		(*n)++;
}

static __always_inline int drop(enum hook hook, enum drop_reason reason)
{
	count_drop(reason);
	return gone(hook);
}

/* The packet has been written to and cannot be finished: it must not go anywhere. */
static __always_inline int give_up(enum hook hook)
{
	count_drop(DROP_HELPER);
	return hook == XDP ? XDP_ABORTED : TC_ACT_SHOT;
}

/* Reads a field of the context. Left to itself the compiler computes the field's
 * address once for several reads, which the verifier refuses. */
#define field(ctx, type, name)                                                         \
	({                                                                             \
		__u64 value_;                                                          \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                                  \
			     : "=r"(value_)                                            \
			     : "r"(ctx), "i"(__builtin_offsetof(type, name)));         \
		value_;                                                                \
	})

/* The frame, if at least its first `size` bytes can be read and written directly.
 * What was returned earlier is no longer valid. */
static __always_inline void *frame(void *ctx, enum hook hook, __u32 size)
{
	void *data, *end;

	if (hook == XDP) {
		data = (void *)field(ctx, struct xdp_md, data);
		end = (void *)field(ctx, struct xdp_md, data_end);
	} else {
		data = (void *)field(ctx, struct __sk_buff, data);
		end = (void *)field(ctx, struct __sk_buff, data_end);
		if (unlikely(data + size > end)) {
			if (bpf_skb_pull_data(ctx, size))
				return NULL;
			data = (void *)field(ctx, struct __sk_buff, data);
			end = (void *)field(ctx, struct __sk_buff, data_end);
		}
	}
	/* It never is. A comparison with it that is left in the code would want
	 * CAP_PERFMON of whoever loads it. */
	if (!data)
		__builtin_unreachable();
	return data + size > end ? NULL : data;
}

static __always_inline long load(void *ctx, enum hook hook, __u32 offset, void *to, __u64 size)
{
	return hook == XDP ? bpf_xdp_load_bytes(ctx, offset, to, size)
			   : bpf_skb_load_bytes(ctx, offset, to, size);
}

/* With all its fragments. What XDP shows of it cannot be measured without the call:
 * a difference of packet pointers, or one moved by a length that is not fixed,
 * would want CAP_PERFMON of whoever loads it. */
static __always_inline __u32 frame_length(void *ctx, enum hook hook)
{
	return hook == XDP ? bpf_xdp_get_buff_len(ctx) : ((struct __sk_buff *)ctx)->len;
}

/* Cuts what is behind `length` bytes. What frame returned earlier is no longer valid. */
static __always_inline long cut(void *ctx, enum hook hook, __u32 length, __u32 from)
{
	return hook == XDP ? bpf_xdp_adjust_tail(ctx, (int)(length - from))
			   : bpf_skb_change_tail(ctx, length, 0);
}

static __always_inline __u32 arrived_on(void *ctx, enum hook hook)
{
	return hook == XDP ? ((struct xdp_md *)ctx)->ingress_ifindex
			   : ((struct __sk_buff *)ctx)->ifindex;
}

/* Not a frame for many, not one for another host, and in no VLAN. The kernel has
 * judged that before tc; for XDP the daemon tells the interface's MAC address. */
static __always_inline int is_addressed_to_us(void *ctx, enum hook hook, const struct ethhdr *eth)
{
	if (hook == TC) {
		struct __sk_buff *skb = ctx;

		return skb->pkt_type == PACKET_HOST && !skb->vlan_present;
	}
	if (eth->h_dest[0] & 1)
		return 0;

	__u32 index = arrived_on(ctx, hook);
	const struct interface *i = bpf_map_lookup_elem(&interfaces, &index);

	if (!i || !i->known)
		return 1;

	const __u16 *a = (const void *)i->mac, *b = (const void *)eth->h_dest;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]));
}

#endif

//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
#include "maps.h"

#include <linux/pkt_cls.h>

SEC("xdp.frags")
int relay_xdp(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("tc")
int relay_tc(struct __sk_buff *skb)
{
	return TC_ACT_UNSPEC;
}

char relay_license[] SEC("license") = "GPL";

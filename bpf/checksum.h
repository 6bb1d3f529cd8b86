/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Incremental checksums (RFC 1624, equation 3): HC' = ~(~HC + ~m + m'). A change
 * is the sum of ~m + m' over all that is replaced, in memory order, and is
 * folded only at the end. Folding a sum that is not 0 never gives 0, so there is
 * one result however the changes are grouped, and both hooks write the same one.
 */
#ifndef NETPORT_CHECKSUM_H
#define NETPORT_CHECKSUM_H

#include <linux/types.h>

static __always_inline __u64 change16(__u16 old, __u16 new)
{
	return (__u64)(__u16)~old + new;
}

static __always_inline __u64 change32(__u32 old, __u32 new)
{
	return (__u64)(__u32)~old + new;
}

static __always_inline __u64 change128(const __be32 old[4], const __be32 new[4])
{
	return change32(old[0], new[0]) + change32(old[1], new[1]) +
	       change32(old[2], new[2]) + change32(old[3], new[3]);
}

/* For the helpers, which take 32 bits. */
static __always_inline __u32 fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (__u32)(sum + (sum >> 32));
}

static __always_inline __u16 fold16(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)(sum + (sum >> 16));
}

static __always_inline __sum16 changed(__sum16 check, __u64 change)
{
	return (__sum16)~fold16((__u16)~check + change);
}

/* UDP's 0 means that there is no checksum, so a sum of 0 is sent as 0xffff (RFC 768). */
static __always_inline __sum16 changed_udp(__sum16 check, __u64 change)
{
	check = changed(check, change);
	return check ? check : (__sum16)0xffff;
}

#endif

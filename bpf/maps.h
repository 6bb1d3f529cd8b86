/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What the program and the daemon share: the tables, their entries, and the
 * figures that the daemon sets before it loads the program. The daemon writes all
 * of it except the counters, the due times and `closed` of a direction, the drop
 * counters and the events.
 *
 * Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d. Times are nanoseconds of the
 * coarse CLOCK_MONOTONIC unless a field says otherwise.
 */
#ifndef NETPORT_MAPS_H
#define NETPORT_MAPS_H

#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

/* A leg has a block of this many packet ports, and the first is a multiple of it. */
#define BLOCK_PORTS 8

/* What a packet shows of its flow when it arrives. */
struct flow_key {
	__be32 addr[4]; /* source address */
	__be16 port;	/* source port */
	__be16 local;	/* the relay's port that it was sent to */
	__u8 protocol;
	__u8 zero[3];
};

/* Both legs are behind one gateway on `ifindex`: what came from there goes back
 * there with its MAC addresses swapped, and no route is looked up. */
#define FLOW_BACK 1

/* Where a packet goes. One entry for each direction of a pair. */
struct flow {
	__be32 peer[4];	    /* the other leg's address */
	__be16 peer_port;   /* and port */
	__be16 peer_local;  /* the relay's port that it leaves from */
	__u32 slot;	    /* index in `slots` */
	__u32 generation;   /* of the pair; the slot's must be the same */
	__u32 ifindex;	    /* the way to the other leg; 0: not known */
	__u8 direction;	    /* index in slot.from */
	__u8 own;	    /* the address that it must be sent to, in `own_list` */
	__u8 peer_own;	    /* the address that it leaves from, in `own_list` */
	__u8 flags;	    /* FLOW_* */
};

#define CLOSED_FIN 1 /* a FIN was sent on */
#define CLOSED_RST 2 /* a RST was sent on, and nothing after it: a forged one is undone by the next packet */

/* One direction of a pair: a cache line that one packet touches once. */
struct direction {
	__u64 packets;	   /* sent on; of a GSO packet each segment */
	__u64 bytes;	   /* their transport payload */
	__u64 seen;	   /* when the last packet was sent on; the daemon sets it to now first */
	__u64 packet_due;  /* GCRA: when the next packet would be due at the given rate */
	__u64 byte_due;	   /* the same for bytes */
	__u32 packet_cost; /* ns a packet, 0: no limit */
	__u32 kib_cost;	   /* ns for 1,024 bytes of payload, 0: no limit */
	__u32 generation;  /* flows with another one are dead */
	__u32 lifetime;	   /* s: the pair is dead when neither direction was seen for so long */
	__u32 closed;	   /* CLOSED_* */
	__u32 error_due;   /* GCRA for ICMP errors, in ms */
};

struct slot {
	struct direction from[2];
};

struct address {
	__be32 addr[4];
};

/* A source that may send TCP to a block of packet ports without having a flow. */
struct admission {
	__be32 addr[4];
	__u16 block; /* its first port */
	__u16 zero;
};

/* The MAC address of an interface: frames for other MACs are not the relay's. */
struct interface {
	__u8 mac[6];
	__u16 known; /* 0: nothing is known, any unicast MAC will do */
};

/* What the daemon wants to know of a session after a restart. */
struct lease_key {
	__u8 bytes[24];
};
struct lease {
	__u8 bytes[512];
};

/* Why a packet to a session port was dropped. Append only: the counters of a
 * pinned program outlive it. */
enum drop_reason {
	DROP_LENGTH = 0,           /* a length that lies, or a header that is cut off */
	DROP_FRAGMENT = 1,         /* a first fragment */
	DROP_OPTIONS = 2,          /* TCP to a packet port behind IP options or extension headers */
	DROP_TTL = 3,              /* TTL or hop limit used up */
	DROP_CHECKSUM = 4,         /* UDP over IPv6 without a checksum */
	DROP_FORBIDDEN_SOURCE = 5, /* a source that no host may have, or the relay's own */
	DROP_UNKNOWN_SOURCE = 6,   /* TCP to a packet port from a source that is not admitted */
	DROP_STALE = 7,            /* flow of a pair that was removed */
	DROP_EXPIRED = 8,          /* flow of a pair that nobody used for its lifetime */
	DROP_RATE_LIMIT = 9,       /* over the rate of its direction */
	DROP_ROUTE = 10,           /* no way to the other leg */
	DROP_RING_FULL = 11,       /* meant for the daemon, which did not keep up */
	DROP_HELPER = 12,          /* the kernel refused a change to the packet */
	DROP_REASONS = 13,
};

enum event_kind {
	EVENT_HANDSHAKE = 1, /* TCP to a packet port: a SYN, or no flow (yet) */
	EVENT_FORWARD = 2,   /* belongs to a flow, please rewrite and send it */
	EVENT_TOO_BIG = 3,   /* belongs to a flow, but is larger than `mtu` */
};

enum event_reason {
	REASON_SYN = 1,		/* HANDSHAKE: has the SYN bit */
	REASON_NO_FLOW = 2,	/* HANDSHAKE: nothing known of it but its source */
	REASON_NEIGHBOUR = 3,	/* FORWARD: the next hop's MAC address is not known */
	REASON_FORWARDING = 4,	/* FORWARD: the kernel looks up no routes, forwarding is off */
	REASON_ROUTE = 5,	/* FORWARD: a route that the program cannot use */
	REASON_MTU = 6,		/* TOO_BIG */
};

/* What the daemon is told. The record in the ring may be larger than what is in it. */
struct event {
	__u32 ifindex; /* where the packet arrived */
	__u32 length;  /* of packet */
	__u8 kind;     /* enum event_kind */
	__u8 reason;   /* enum event_reason */
	__u16 mtu;     /* TOO_BIG: what the way out can take */
	__u8 packet[]; /* as it arrived, from the IP header on, without padding */
};

_Static_assert(sizeof(struct flow_key) == 24, "flow_key");
_Static_assert(sizeof(struct flow) == 36, "flow");
_Static_assert(sizeof(struct direction) == 64, "direction is one cache line");
_Static_assert(sizeof(struct slot) == 128, "slot");
_Static_assert(sizeof(struct admission) == 20, "admission");
_Static_assert(sizeof(struct interface) == 8, "interface");
_Static_assert(sizeof(struct event) == 12, "event");

/* Set before loading; host byte order. The packet ports are inside the session ports. */
const volatile __u16 session_first;
const volatile __u16 session_last;
const volatile __u16 packet_first;
const volatile __u16 packet_last;

/* In whose name routes are asked for, by IP version: an interface that forwards,
 * though the host may not. 0: of which the packet came by. */
const volatile __u32 asker4;
const volatile __u32 asker6;

/* Carries to Go what no map shows. */
const struct {
	enum drop_reason drop;
	enum event_kind kind;
	enum event_reason reason;
	struct event event;
} volatile shapes;

/* The sizes of flows, slots, admitted and leases are set by the daemon. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * 65536);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* Mapped by the daemon, which reads and writes it without system calls. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

/* The relay's own addresses: by number (0 is never used), and the numbers by address. */
#define OWN_ADDRESSES 64
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, OWN_ADDRESSES);
	__type(key, __u32);
	__type(value, struct address);
} own_list SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, OWN_ADDRESSES);
	__type(key, struct address);
	__type(value, __u8);
} own_index SEC(".maps");

/* By ifindex; interfaces with a larger one are taken as not known. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct interface);
} interfaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8 * 65536);
	__type(key, struct admission);
	__type(value, __u8);
} admitted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROP_REASONS);
	__type(key, __u32); /* enum drop_reason */
	__type(value, __u64);
} drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} events SEC(".maps");

/* Only the daemon reads and writes it. It lies here so that it lives as long as the flows do. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct lease_key);
	__type(value, struct lease);
} leases SEC(".maps");

#endif

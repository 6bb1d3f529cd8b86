//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
//
// What stands round a relay on a veth pair to measure it: a generator of frames, two sinks that count what comes back, and
// what a relay is compared with.
//
//	    near device                  far device
//	generate --> transmit --------> relay, or reflect
//	count, drop <------------------ transmit
//
// The generator runs by BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES. The kernel uses its frames again and does not
// reset them, so the program writes every field that a relay changes.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define TTL 64

// What the generator writes. A frame belongs to flow number n of `flows`, which is picked at random; n is added to the
// source address and, as far as the masks let it through, to the ports.
const volatile __u16 macs[6]; // destination and source, as they stand in the frame
const volatile __u32 flows = 1;
const volatile __u32 source, target; // IPv4 addresses; these and the ports in host order
const volatile __u32 source_mask;
const volatile __u16 source_port, target_port;
const volatile __u16 source_port_mask, target_port_mask;
const volatile __u16 length; // of the UDP datagram with its header
const volatile __u32 payload_sum; // the payload's 16-bit words added up

// The sinks take datagrams to this port and to no other; 0: all. It may change at any time.
volatile __u16 sink_port;

// received counts what the sinks took.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} received SEC(".maps");

struct datagram {
	struct ethhdr *eth;
	struct iphdr *ip;
	struct udphdr *udp;
};

// parse finds the headers of an IPv4 datagram without options.
static __always_inline int parse(void *data, void *end, struct datagram *d)
{
	d->eth = data;
	d->ip = (void *)(d->eth + 1);
	d->udp = (void *)(d->ip + 1);
	if ((void *)(d->udp + 1) > end)
		return 0;
	return d->eth->h_proto == bpf_htons(ETH_P_IP) && d->ip->version == 4 && d->ip->ihl == 5 &&
	       d->ip->protocol == IPPROTO_UDP;
}

static __u32 dice = 1;

// pick returns the number of a flow, each as likely as any other.
static __always_inline __u32 pick(void)
{
	dice = dice * 1664525 + 1013904223; // its upper bits are good enough
	return (__u64)dice * flows >> 32;
}

static __always_inline __u16 checksum(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct datagram d;
	if (!parse((void *)(long)ctx->data, (void *)(long)ctx->data_end, &d))
		return XDP_ABORTED;

	__u32 n = pick();
	__u32 from = source + (n & source_mask), to = target;
	__u16 from_port = source_port + (n & source_port_mask), to_port = target_port + (n & target_port_mask);
	__u32 addresses = (from >> 16) + (from & 0xffff) + (to >> 16) + (to & 0xffff);

	__u16 *mac = (__u16 *)d.eth;
	for (int i = 0; i < 6; i++)
		mac[i] = macs[i];
	d.ip->ttl = TTL;
	d.ip->saddr = bpf_htonl(from);
	d.ip->daddr = bpf_htonl(to);
	d.ip->check = bpf_htons(checksum(0x4500 + sizeof(struct iphdr) + length + (TTL << 8 | IPPROTO_UDP) + addresses));
	d.udp->source = bpf_htons(from_port);
	d.udp->dest = bpf_htons(to_port);
	__u16 sum = checksum(addresses + IPPROTO_UDP + length + from_port + to_port + length + payload_sum);
	d.udp->check = bpf_htons(sum ? sum : 0xffff);
	return XDP_TX;
}

// take says whether a frame is for the sink, and counts it.
static __always_inline int take(void *data, void *end)
{
	struct datagram d;
	__u16 port = sink_port;
	if (!parse(data, end, &d) || (port && d.udp->dest != bpf_htons(port)))
		return 0;
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&received, &zero);
	if (count)
		(*count)++;
	return 1;
}

SEC("xdp")
int sink_frames(struct xdp_md *ctx)
{
	return take((void *)(long)ctx->data, (void *)(long)ctx->data_end) ? XDP_DROP : XDP_PASS;
}

SEC("tcx/ingress")
int sink_packets(struct __sk_buff *skb)
{
	return take((void *)(long)skb->data, (void *)(long)skb->data_end) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

// reflect is the least that can send a frame back.
SEC("xdp")
int reflect(struct xdp_md *ctx)
{
	return XDP_TX;
}

// What a relay cannot do without: an entry of its own for each flow, of the size that the kernel plane's have.
struct flow_key {
	__be32 addr[4];
	__be16 port;
	__be16 local;
	__u32 protocol;
};
struct flow {
	__u8 way[36];
};
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); // the bench sets it
	__type(key, struct flow_key);
	__type(value, struct flow);
} known SEC(".maps");

// reflect_known sends a frame back if its flow is known.
SEC("xdp")
int reflect_known(struct xdp_md *ctx)
{
	struct datagram d;
	if (!parse((void *)(long)ctx->data, (void *)(long)ctx->data_end, &d))
		return XDP_PASS;
	struct flow_key key = {
		.addr = {0, 0, bpf_htonl(0xffff), d.ip->saddr},
		.port = d.udp->source,
		.local = d.udp->dest,
		.protocol = IPPROTO_UDP,
	};
	return bpf_map_lookup_elem(&known, &key) ? XDP_TX : XDP_DROP;
}

// pass is no program at all: a veth device takes its peer's frames only if it has one.
SEC("xdp")
int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char __license[] SEC("license") = "GPL";

package bpf

// The objects are built with Debian's multiarch headers, of whichever machine they
// are built on; the paths are not in them. And not for 32-bit registers (-mcpu=v3),
// whose stores over a pointer on the stack want CAP_PERFMON of whoever loads them.
//go:generate go tool bpf2go -tags linux -type flow_key -type flow -type direction -type slot -type address -type admission -type interface -type lease_key -type lease -type drop_reason -type event_kind -type event_reason -type event relay relay.bpf.c -- -O2 -g -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu

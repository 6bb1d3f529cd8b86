module github.com/netport/netport/relay

go 1.26.0

require (
	github.com/netport/netport/bpf v0.0.0
	github.com/netport/netport/proto v0.0.0
)

replace (
	github.com/netport/netport/bpf => ../bpf
	github.com/netport/netport/proto => ../proto
)

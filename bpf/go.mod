module github.com/netport/netport/bpf

go 1.26.0

module github.com/netport/netport/portal

go 1.26.0

require github.com/netport/netport/proto v0.0.0

replace github.com/netport/netport/proto => ../proto

module github.com/netport/netport/portal

go 1.26.0

require (
	github.com/google/go-cmp v0.7.0
	github.com/netport/netport/proto v0.0.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/pelletier/go-toml/v2 v2.4.3 // indirect
	golang.org/x/net v0.62.0 // indirect
)

replace github.com/netport/netport/proto => ../proto

module github.com/netport/netport/lab

go 1.26.0

require (
	github.com/vishvananda/netlink v1.3.1
	github.com/vishvananda/netns v0.0.5
	golang.org/x/net v0.62.0
	golang.org/x/sys v0.49.0
)

require github.com/google/go-cmp v0.7.0

require github.com/pelletier/go-toml/v2 v2.4.3

module github.com/netport/netport/relay

go 1.26.0

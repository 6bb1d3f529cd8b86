module github.com/netport/netport/portal

go 1.26.0

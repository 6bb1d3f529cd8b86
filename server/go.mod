module github.com/netport/netport/server

go 1.26.0

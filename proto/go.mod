module github.com/netport/netport/proto

go 1.26.0

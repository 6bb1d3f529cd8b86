package grants

import (
	"fmt"
	"testing"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
)

// BenchmarkAdmit asks for one of many grants, as every stream does.
func BenchmarkAdmit(b *testing.B) {
	hours, err := grant.NewHours("CET-1CEST,M3.5.0,M10.5.0/3", []grant.Window{{Days: 0x7f, From: 0, Until: 1440}})
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{1, 10000} {
		for name, terms := range map[string]grant.Terms{"plain": {}, "hours": {Hours: hours}} {
			b.Run(fmt.Sprint(name, "/", n), func(b *testing.B) {
				s := NewSet(peer("exit"), public(policyKey))
				s.Connected(stamps())
				var g grant.Grant
				for i := range n {
					p := permission(1, fmt.Sprint("web", i), "ann", "exit")
					p.Terms = terms
					p.Listen = endpoint.MustParse(fmt.Sprintf("tcp://127.0.0.1:%d", 1000+i))
					g = sign(p, start)
					if _, err := s.Put(start, g.AppendTo(nil)); err != nil {
						b.Fatal(err)
					}
				}
				ann, id := peer("ann"), g.ID()
				for b.Loop() {
					if _, err := s.Admit(start, ann, id, nil); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

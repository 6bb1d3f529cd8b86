package topo

import (
	"encoding/json"
	"fmt"
)

// Arrivals is what reached a node by its uplink: IP packets and their bytes, headers included.
type Arrivals struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// CountArrivals starts counting in the kernel every IP packet that reaches the node by its uplink, whatever its port and
// whether anyone listens, and returns a function that tells the count so far. Neighbour discovery and multicast
// membership are left out, so that a node that no one should talk to counts 0.
func (n *Node) CountArrivals() func() Arrivals {
	n.t.Helper()
	n.nft(fmt.Sprintf(`table inet arrivals
delete table inet arrivals
table inet arrivals {
 counter arrived { }
 chain in {
  type filter hook prerouting priority raw
  iifname != %q return
  icmpv6 type 130-143 return
  counter name arrived
 }
}
`, n.device))
	return n.readArrivals
}

func (n *Node) readArrivals() Arrivals {
	n.t.Helper()
	out, err := n.Command("nft", "-j", "list", "counter", "inet", "arrivals", "arrived").CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s: read counter of arrivals: %v\n%s", n.name, err, out)
	}
	var listed struct {
		Nftables []struct{ Counter *Arrivals }
	}
	if err := json.Unmarshal(out, &listed); err != nil {
		n.t.Fatalf("%s: read counter of arrivals: %v\n%s", n.name, err, out)
	}
	for _, object := range listed.Nftables {
		if object.Counter != nil {
			return *object.Counter
		}
	}
	n.t.Fatalf("%s: read counter of arrivals: none in\n%s", n.name, out)
	return Arrivals{}
}

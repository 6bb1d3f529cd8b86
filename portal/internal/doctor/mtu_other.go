//go:build !linux

package doctor

import (
	"context"
	"net/netip"
)

// pathMTU returns 0: this system does not tell what it knows.
func pathMTU(context.Context, netip.AddrPort) int { return 0 }

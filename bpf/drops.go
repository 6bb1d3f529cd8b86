//go:build linux

package bpf

// dropNames are those of enum drop_reason, in small letters.
var dropNames = [relayDropReasonDROP_REASONS]string{
	relayDropReasonDROP_LENGTH:           "length",
	relayDropReasonDROP_FRAGMENT:         "fragment",
	relayDropReasonDROP_OPTIONS:          "options",
	relayDropReasonDROP_TTL:              "ttl",
	relayDropReasonDROP_CHECKSUM:         "checksum",
	relayDropReasonDROP_FORBIDDEN_SOURCE: "forbidden_source",
	relayDropReasonDROP_UNKNOWN_SOURCE:   "unknown_source",
	relayDropReasonDROP_STALE:            "stale",
	relayDropReasonDROP_EXPIRED:          "expired",
	relayDropReasonDROP_RATE_LIMIT:       "rate_limit",
	relayDropReasonDROP_ROUTE:            "route",
	relayDropReasonDROP_RING_FULL:        "ring_full",
	relayDropReasonDROP_HELPER:           "helper",
}

// Drops counts the packets to session ports that the program has dropped since
// the maps were made, by why: the names of enum drop_reason in the C source, in
// small letters. All of them are there.
func (k *Kernel) Drops() map[string]uint64 {
	k.mu.RLock()
	defer k.mu.RUnlock()
	drops := make(map[string]uint64, len(dropNames))
	for reason, name := range dropNames {
		drops[name] = 0
		if k.closed {
			continue
		}
		var each []uint64 // one for each processor
		if err := k.maps.Drops.Lookup(uint32(reason), &each); err != nil {
			k.log.Error("drops not read", "reason", name, "error", err)
			continue
		}
		for _, n := range each {
			drops[name] += n
		}
	}
	return drops
}

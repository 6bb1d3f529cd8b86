package tunnel

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// The protocol's words for it, said in another way.
func TestIdentityIsWhatTheProtocolSays(t *testing.T) {
	first, other := [32]byte{1, 2, 3}, [32]byte{4, 5, 6}
	sum := func(key []byte, message string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(message))
		return h.Sum(nil)
	}
	i := NewIdentity("factory-1", first)
	if got, want := hex.EncodeToString(i.ID[:]), hex.EncodeToString(sum(first[:], "netport tunnel id")[:16]); got != want {
		t.Errorf("id: %s, want %s", got, want)
	}
	secret := sum(first[:], "netport tunnel resume")
	for role, client := range map[byte]bool{0: true, 1: false} {
		want := sum(secret, string(other[:])+string([]byte{role}))
		if got := i.Proof(other, client); hex.EncodeToString(got[:]) != hex.EncodeToString(want) {
			t.Errorf("proof of role %d: %x, want %x", role, got, want)
		}
	}
	toClient, toServer, key := i.Probe()
	ids := sum(secret, "netport probe id")
	if got, want := hex.EncodeToString(toClient[:])+hex.EncodeToString(toServer[:]), hex.EncodeToString(ids[:16]); got != want {
		t.Errorf("probe ids: %s, want %s", got, want)
	}
	if want := sum(secret, "netport probe key"); hex.EncodeToString(key[:]) != hex.EncodeToString(want) {
		t.Errorf("probe key: %x, want %x", key, want)
	}
	if got, want := i.Direct(), sum(secret, "netport direct")[:16]; hex.EncodeToString(got[:]) != hex.EncodeToString(want) {
		t.Errorf("session of direct carriers: %x, want %x", got, want)
	}
}

// Who names the same machine in the same tunnel says the same of one role, and nothing else
// is the same: neither can send back what the other said, nor take it to another tunnel.
func TestMachineIsSaidToOnePeerOnly(t *testing.T) {
	i := NewIdentity("factory-1", [32]byte{1})
	said := i.Machine("m", true)
	if said != NewIdentity("ann", [32]byte{1}).Machine("m", true) {
		t.Error("the two portals of a tunnel do not say the same of one machine")
	}
	for name, other := range map[string][16]byte{
		"the other role": i.Machine("m", false), "another machine": i.Machine("n", true), "no machine": i.Machine("", true),
		"another tunnel": NewIdentity("factory-1", [32]byte{2}).Machine("m", true),
	} {
		if other == said {
			t.Errorf("%s says the same", name)
		}
	}
	if i.Machine("", true) != [16]byte{} {
		t.Error("a machine without a name is named")
	}
}

func TestProofIsGoodForOneSideOfOneCarrierOfOneTunnel(t *testing.T) {
	binding := [32]byte{7}
	i := NewIdentity("factory-1", [32]byte{1})
	proof := i.Proof(binding, true)
	if !i.Proves(binding, true, proof) {
		t.Error("the right proof is refused")
	}
	wrong := proof
	wrong[31] ^= 1
	for name, holds := range map[string]bool{
		"sent back":          i.Proves(binding, false, proof),
		"on another carrier": i.Proves([32]byte{8}, true, proof),
		"of another tunnel":  NewIdentity("factory-1", [32]byte{2}).Proves(binding, true, proof),
		"with a flipped bit": i.Proves(binding, true, wrong),
		"that is missing":    i.Proves(binding, true, [32]byte{}),
	} {
		if holds {
			t.Errorf("a proof %s is accepted", name)
		}
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	i := NewIdentity("factory-1", [32]byte{1})
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("tunnel", "tunnel", i, "nested", slog.AnyValue([]any{i}))
	for _, said := range []string{fmt.Sprint(i), fmt.Sprintf("%+v", i), fmt.Sprintf("%#v", i), fmt.Sprintf("%x", i), log.String()} {
		if strings.Contains(said, hex.EncodeToString(i.secret[:4])) || strings.Contains(said, fmt.Sprint(i.secret[0], i.secret[1])) || !strings.Contains(said, i.ID.String()) {
			t.Errorf("printed: %s", said)
		}
	}
}

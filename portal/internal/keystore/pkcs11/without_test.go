//go:build !(pkcs11 && cgo)

package pkcs11

import (
	"strings"
	"testing"
)

func TestProgramBuiltWithoutSaysHowToBuildIt(t *testing.T) {
	var tokens Tokens
	_, _, err := tokens.Make(URI{})
	if err == nil || !strings.Contains(err.Error(), "make build-pkcs11") || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
}

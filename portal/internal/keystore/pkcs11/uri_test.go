package pkcs11

import (
	"encoding/pem"
	"strings"
	"testing"
)

func TestURIIsReadAndWritten(t *testing.T) {
	u, err := ParseURI("pkcs11:token=The%20Software%3bToken;object=a%26b;type=private;serial=DE%2f1?module-path=/usr/lib/a&pin-source=file:///etc/a%20pin")
	want := URI{Token: "The Software;Token", Object: "a&b", Serial: "DE/1", Module: "/usr/lib/a", PIN: "/etc/a pin"}
	if err != nil || u != want {
		t.Fatalf("%+v, %v", u, err)
	}
	u.ID = "\x00;?&=\xff"
	text, err := u.encode()
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != BlockType || len(rest) > 0 {
		t.Fatalf("no such PEM block: %s", text)
	}
	if got, err := decode(block.Bytes); err != nil || got != u {
		t.Errorf("from its file: %+v, %v; want %+v", got, err, u)
	}
	for n := range block.Bytes {
		if _, err := decode(block.Bytes[:n]); err == nil {
			t.Errorf("a file cut after %d bytes passes", n)
		}
	}
}

func TestURIsThatAreRefused(t *testing.T) {
	for uri, want := range map[string]string{
		"token=a;object=b?module-path=/m":                                          `begin with "pkcs11:"`,
		"pkcs11:object=b?module-path=/m":                                           "names no token",
		"pkcs11:token=a?module-path=/m":                                            "names no key",
		"pkcs11:token=a;object=b":                                                  "names no module",
		"pkcs11:token=a;object=b?module-path=m.so":                                 "names no module",
		"pkcs11:token=a;object=b?module-path=/m&pin-value=123456":                  "pin-source",
		"pkcs11:token=a;object=b?module-path=/m&pin-source=pin":                    "whole path",
		"pkcs11:token=a;object=b?module-path=/m&pin-source=%7cprogram":             "whole path",
		"pkcs11:token=a;token=c;object=b?module-path=/m":                           "twice",
		"pkcs11:token=a;object=b;type=cert?module-path=/m":                         `"type"`,
		"pkcs11:token=a;object=b;module-path=/m":                                   `"module-path"`,
		"pkcs11:token=a;object=%zz?module-path=/m":                                 "escape",
		"pkcs11:token=a;object=" + strings.Repeat("b", maxURI) + "?module-path=/m": "at most",
	} {
		_, err := ParseURI(uri)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "123456") {
			t.Errorf("%.60s: %v, want %q", uri, err, want)
		}
	}
}

//go:build pkcs11 && cgo

package pkcs11

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/netport/netport/proto/identity"
)

// session is an open session at one token.
type session struct {
	module *pkcs11.Ctx
	handle pkcs11.SessionHandle
}

// connect loads the module, finds the token and gives it the PIN.
func (t *Tokens) connect(u URI) (_ *session, err error) {
	if _, err := os.Stat(u.Module); errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("there is no such module: install it, or name another with module-path")
	}
	module := pkcs11.New(u.Module)
	if module == nil {
		return nil, errors.New("the module cannot be loaded: it is no PKCS #11 library for this system")
	}
	if err := module.Initialize(); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		module.Destroy()
		return nil, fmt.Errorf("start the module: %w", err)
	}
	s := &session{module: module}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	slot, info, err := s.find(u)
	if err != nil {
		return nil, err
	}
	if s.handle, err = module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION); err != nil {
		return nil, fmt.Errorf("open a session: %w", err)
	}
	if u.PIN == "" {
		return s, nil
	}
	return s, t.login(s, u, info)
}

// login gives the PIN, unless that would be foolish.
func (t *Tokens) login(s *session, u URI, info pkcs11.TokenInfo) error {
	b, err := identity.ReadSecret(u.PIN)
	if err != nil {
		return fmt.Errorf("its PIN: %w", err)
	}
	pin := strings.TrimRight(string(b), "\r\n")
	wrong := pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)
	if t.refused[u] == pin && pin != "" {
		return wrong
	}
	if info.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0 {
		return errors.New("one more wrong PIN locks it: give it the right one with the tool of its maker first")
	}
	err = s.module.Login(s.handle, pkcs11.CKU_USER, pin)
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
		return nil
	}
	if errors.Is(err, wrong) {
		if t.refused == nil {
			t.refused = map[URI]string{}
		}
		t.refused[u] = pin
	}
	return err
}

// close gives everything back. The module is stopped too: after a loss of its device
// many find it again only when they are started anew.
func (s *session) close() {
	s.module.CloseSession(s.handle)
	s.module.Finalize()
	s.module.Destroy()
}

// find returns the slot of the token.
func (s *session) find(u URI) (slot uint, token pkcs11.TokenInfo, err error) {
	slots, err := s.module.GetSlotList(true)
	if err != nil {
		return 0, token, fmt.Errorf("list its tokens: %w", err)
	}
	found := 0
	var others []string
	for _, id := range slots {
		info, err := s.module.GetTokenInfo(id)
		if err != nil {
			continue // it is going away
		}
		if (u.Token == "" || u.Token == info.Label) && (u.Serial == "" || u.Serial == info.SerialNumber) &&
			(u.Model == "" || u.Model == info.Model) && (u.Manufacturer == "" || u.Manufacturer == info.ManufacturerID) {
			slot, token = id, info
			found++
		} else if info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0 {
			others = append(others, fmt.Sprintf("%q", info.Label))
		}
	}
	switch {
	case found > 1:
		return 0, token, fmt.Errorf("%d tokens are called so: add serial=NUMBER to the URI", found)
	case found == 1:
		return slot, token, nil
	case len(others) > 0:
		slices.Sort(others)
		return 0, token, fmt.Errorf("the module has no such token, only %s", strings.Join(others, ", "))
	}
	return 0, token, errors.New("the module has no token: plug it in, or initialise it")
}

// p256 is the curve's object identifier, in DER.
var p256 = []byte{asn1.TagOID, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}

// generate makes a key pair that stays.
func (s *session) generate(u URI) (*ecdsa.PublicKey, error) {
	attribute := pkcs11.NewAttribute
	named := []*pkcs11.Attribute{attribute(pkcs11.CKA_TOKEN, true), attribute(pkcs11.CKA_LABEL, u.Object), attribute(pkcs11.CKA_ID, u.ID)}
	_, _, err := s.module.GenerateKeyPair(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)},
		append(named[:len(named):len(named)], attribute(pkcs11.CKA_VERIFY, true), attribute(pkcs11.CKA_EC_PARAMS, p256)),
		append(named[:len(named):len(named)], attribute(pkcs11.CKA_PRIVATE, true), attribute(pkcs11.CKA_SENSITIVE, true),
			attribute(pkcs11.CKA_EXTRACTABLE, false), attribute(pkcs11.CKA_SIGN, true)))
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return s.public(u)
}

// objects returns the objects of a key that have these attributes besides.
func (s *session) objects(u URI, more ...*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	if err := s.module.FindObjectsInit(s.handle, append(more, pkcs11.NewAttribute(pkcs11.CKA_ID, u.ID), pkcs11.NewAttribute(pkcs11.CKA_LABEL, u.Object))); err != nil {
		return nil, fmt.Errorf("look for the key: %w", err)
	}
	list, _, err := s.module.FindObjects(s.handle, 2)
	if ferr := s.module.FindObjectsFinal(s.handle); err == nil {
		err = ferr
	}
	if err != nil {
		return nil, fmt.Errorf("look for the key: %w", err)
	}
	return list, nil
}

func (s *session) one(u URI, class uint) (pkcs11.ObjectHandle, error) {
	list, err := s.objects(u, pkcs11.NewAttribute(pkcs11.CKA_CLASS, class))
	if err != nil {
		return 0, err
	}
	if len(list) != 1 {
		hint := ""
		if u.PIN == "" {
			hint = ", or is not shown without a PIN (pin-source=file:/PATH)"
		}
		return 0, fmt.Errorf("the key %q with the id %x is not on it%s", u.Object, u.ID, hint)
	}
	return list[0], nil
}

// private returns the private half of a key.
func (s *session) private(u URI) (pkcs11.ObjectHandle, error) {
	return s.one(u, pkcs11.CKO_PRIVATE_KEY)
}

// public returns the public half of a key.
func (s *session) public(u URI) (*ecdsa.PublicKey, error) {
	object, err := s.one(u, pkcs11.CKO_PUBLIC_KEY)
	if err != nil {
		return nil, err
	}
	list, err := s.module.GetAttributeValue(s.handle, object, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, nil), pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil),
	})
	if err != nil {
		return nil, fmt.Errorf("read the public key: %w", err)
	}
	var point []byte
	if rest, err := asn1.Unmarshal(list[1].Value, &point); err != nil || len(rest) > 0 {
		point = list[1].Value // some modules leave out the OCTET STRING around it
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil || !bytes.Equal(list[0].Value, p256) {
		return nil, fmt.Errorf("the key %q is no ECDSA P-256 key", u.Object)
	}
	return key, nil
}

// destroy removes both halves of a key.
func (s *session) destroy(u URI) error {
	list, err := s.objects(u)
	if err != nil {
		return err
	}
	for _, object := range list {
		if err := s.module.DestroyObject(s.handle, object); err != nil {
			return fmt.Errorf("destroy the key %q: %w", u.Object, err)
		}
	}
	return nil
}

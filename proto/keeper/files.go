package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// A certificate with a new key becomes current by one step, the replacing of the
// certificate's file:
//
//	1. the new key is written beside the old one     certificate and key: old
//	2. the new certificate replaces the old one      certificate: new, its key beside
//	3. the new key replaces the old one              both: new
//
// Between the last two the old key is destroyed where it is, if that is not in its file.
// Whatever a crash leaves is one of the three, and finishKey makes the third of the
// second.

// nextKey is the file of the key that a certificate is asked for with.
func nextKey(file string) string { return file + ".next" }

// moveKey makes the new key current, whose certificate is.
func (k *Keeper) moveKey() error {
	if err := k.Keys.Discard(k.Key); err != nil {
		k.Log.Warn("the key that is no longer used was not destroyed", "error", err)
	}
	if err := os.Rename(nextKey(k.Key), k.Key); err != nil {
		return fmt.Errorf("put the new key in its place: %w", err)
	}
	return identity.SyncFolder(filepath.Dir(k.Key))
}

// finishKey brings a change of the key to its end if the certificate is that of the
// new one.
func (k *Keeper) finishKey() error {
	next := nextKey(k.Key)
	if !exists(next) {
		return nil
	}
	certs, err := identity.LoadCertificates(k.Certificate)
	if err != nil {
		return err
	}
	key, err := k.Keys.Load(next)
	if err != nil {
		return err
	}
	if identity.HashPublic(key.Public()) != identity.HashKey(certs[0]) {
		return nil
	}
	return k.moveKey()
}

func exists(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

// SaveAuthorities writes what a Keeper with that state folder will trust.
func SaveAuthorities(state string, m wire.Authorities) error {
	return identity.ReplaceFile(filepath.Join(state, authoritiesFile), wire.AppendMessage(nil, m), 0o600)
}

// readAuthorities reads what SaveAuthorities wrote.
func readAuthorities(state string) (wire.Authorities, error) {
	file := filepath.Join(state, authoritiesFile)
	b, err := identity.ReadFile(file)
	if err != nil {
		return wire.Authorities{}, err
	}
	m, err := wire.ParseAuthorities(bytes.TrimPrefix(b, b[:min(len(b), wire.ControlHeaderLen)]))
	if err != nil || !bytes.Equal(wire.AppendMessage(nil, m), b) {
		return wire.Authorities{}, fmt.Errorf("read %s: it is cut or was altered", file)
	}
	return m, nil
}

// loadAuthorities trusts what was kept, if the policy key signed it. Else those of
// the CA file are trusted.
func (k *Keeper) loadAuthorities() {
	m, err := readAuthorities(k.State)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = k.trust(m)
	}
	if err != nil {
		k.Log.Warn("the authorities that were kept are not taken: those of the CA file are trusted, until a server tells", "error", err)
	}
}

// takeAuthorities takes those of the server.
func (k *Keeper) takeAuthorities(m wire.Authorities) {
	k.mu.Lock()
	held := k.version
	k.mu.Unlock()
	if m.Version == held {
		return
	}
	if k.Policy == nil {
		k.Log.Debug("authorities of the server not taken: the configuration names no policy_key that could have signed them", "version", m.Version)
		return
	}
	err := k.trust(m)
	if err == nil {
		err = SaveAuthorities(k.State, m)
	}
	if err != nil {
		k.Log.Error("authorities of the server not taken", "version", m.Version, "error", err)
		return
	}
	k.Log.Info("the domain's authorities have changed", "version", m.Version, "authorities", len(m.Certificates), "issuing", m.Issuing.String())
	k.poke()
}

// trust checks a list of authorities, and trusts it.
func (k *Keeper) trust(m wire.Authorities) error {
	k.mu.Lock()
	held := k.version
	k.mu.Unlock()
	switch {
	case k.Policy == nil:
		return errors.New("the configuration names no policy_key that could have signed them")
	case !m.SignedBy(k.Policy):
		return errors.New("the policy key has not signed them")
	case m.Version < held:
		return fmt.Errorf("version %d is older than version %d, which is trusted here", m.Version, held)
	}
	roots, err := identity.ParseChain(m.Certificates)
	if err == nil {
		err = k.credentials.Trust(roots)
	}
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.version, k.issuing = m.Version, m.Issuing
	return nil
}

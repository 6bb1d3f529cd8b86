package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/netport/netport/portal/internal/keystore"
	"github.com/netport/netport/portal/internal/state"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/keeper"
	"github.com/netport/netport/proto/local"
)

// files looks at the files and folders, and reads the credentials and what was kept.
func (e *examination) files() {
	c := e.config
	keys := &keystore.Store{TPM: c.TPM}
	_, err := keys.Load(c.Key)
	e.file("key", c.Key, err)
	if err == nil {
		e.credentials, err = keeper.Look(keeper.Config{
			Role: identity.Portal, Certificate: c.Certificate, Key: c.Key, Keys: keys, CA: c.CA, State: c.State, Policy: c.PolicyKey,
		}, e.certain)
		e.file("certificate", c.Certificate, err)
	}
	if e.credentials != nil {
		leaf := e.credentials.Leaf()
		e.f.Begins, e.f.Ends = leaf.NotBefore, leaf.NotAfter
	}
	err = writable(c.State)
	e.file("state", c.State, err)
	if err == nil {
		if e.kept, err = state.Read(c.State); err != nil {
			e.file("kept state", c.State, err)
		}
	}
	if _, err := os.Stat(filepath.Dir(c.Socket)); err != nil && filepath.Dir(c.Socket) != filepath.Clean(c.State) {
		e.file("socket", c.Socket, fmt.Errorf("its folder: %w", err))
	}
}

func (e *examination) file(what, path string, err error) {
	e.f.Files = append(e.f.Files, File{what, path, err})
}

// certain is the time by which servers are judged here: a clock that is wrong must not hide
// whether it is the right server that answers. It is now, while this portal's own
// certificate holds, and else the middle of that one's life.
func (e *examination) certain() time.Time {
	now := e.Now()
	if e.f.Begins.IsZero() || now.After(e.f.Begins) && now.Before(e.f.Ends) {
		return now
	}
	return e.f.Begins.Add(e.f.Ends.Sub(e.f.Begins) / 2)
}

// writable says why a state folder cannot be used; it may be missing.
func writable(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := local.CheckState(dir); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(make([]byte, 4096)) // a full disk takes a name and no bytes
	return errors.Join(err, f.Close())
}

func compareServers(a, b *Server) int {
	return cmp.Or(strings.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port), a.Addr.Compare(b.Addr))
}

func compareRelays(a, b *Relay) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), a.Addr.Compare(b.Addr))
}

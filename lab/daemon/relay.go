package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/lab/await"
)

// Relay is a netport-relay.
type Relay struct {
	*Daemon
	ready func(name string) error // reports why the relay's server does not have it
}

// kernelRights are the capabilities that a relay needs to forward in the kernel, and no others.
var kernelRights = []uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}

// InKernel lets a relay forward in the kernel, in a mode of its configuration ("tc", "xdp", "xdp-generic", "auto"): it runs
// with the rights that this takes, and its host has a BPF file system.
func InKernel(mode string) Option { return Option{key: "mode", value: mode, kernel: true} }

// As has a relay run as another user than all the rest.
func As(user string) Option { return Option{user: user} }

// become gives the relay and its files to another user.
func (r *Relay) become(user string) {
	r.t.Helper()
	dir := filepath.Join(r.host.DirOf(user), r.role)
	if err := os.Rename(r.dir, dir); err != nil {
		r.t.Fatal(err)
	}
	r.host.Run("chown", "--recursive", user, dir)
	r.user, r.dir = user, dir
}

// setUp configures the relay and starts it.
func (r *Relay) setUp(options []Option) {
	r.t.Helper()
	for _, o := range options {
		if o.user != "" {
			r.become(o.user)
		}
	}
	if slices.ContainsFunc(options, func(o Option) bool { return o.kernel }) {
		r.host.MountBPF(r.user)
		r.rights = kernelRights
	}
	r.configure(options)
	r.Start()
}

// Start starts the relay and waits until the server has it.
func (r *Relay) Start() {
	r.t.Helper()
	if r.process != nil { // or the one that has ended may be taken for it
		await.Until(r.t, "without "+r.name, func() error {
			if r.ready(r.name) == nil {
				return errors.New("the server still has it")
			}
			return nil
		})
	}
	r.Launch()
	r.WaitReady()
}

// WaitReady waits until the server has the relay.
func (r *Relay) WaitReady() {
	r.t.Helper()
	r.until("connected to the server", func() error { return r.ready(r.name) })
}

// Restart stops the relay and starts it again.
func (r *Relay) Restart() {
	r.t.Helper()
	r.Stop()
	r.Start()
}

// Status asks the relay how it is and reads the answer into v.
func (r *Relay) Status(v any) {
	r.t.Helper()
	if err := r.ask(v, "status"); err != nil {
		r.t.Fatal(err)
	}
}

// Unload takes what forwards in the kernel down ("netport-relay unload").
func (r *Relay) Unload() {
	r.t.Helper()
	if _, err := r.output(r.Command("unload").With(r.rights...)); err != nil {
		r.t.Fatal(err)
	}
}

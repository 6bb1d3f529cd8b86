package keeper

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// magic begins a file of revocations; then each is a message as on a connection,
// and the first bytes of its SHA-256.
const (
	magic  = "NPrevoked\x01"
	sumLen = 8
	// maxLog is above what the most revocations make.
	maxLog = 32 << 20
)

// log is the file of revocations. It only ever grows; what was torn off its end
// comes again from the server, which is told of the last that is there.
type log struct {
	file *os.File
	err  error // of the first write that failed
}

// openLog adds what a file holds to the set.
func openLog(name string, into *identity.Revocations, l *slog.Logger) (*log, error) {
	b, err := identity.ReadFileLimit(name, maxLog)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	good, list := parseLog(b)
	if err == nil && (good < len(b) || len(b) == 0) { // a whole one has its beginning at least
		l.Warn("the end of the kept revocations is missing: a server will tell it again", "file", name, "good_bytes", good, "bytes", len(b), "epoch", lastEpoch(list))
	}
	if err := into.Add(list...); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the revocations: %w", err)
	}
	fail := func(err error) (*log, error) {
		f.Close()
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	if good == 0 {
		if err := f.Truncate(0); err != nil {
			return fail(err)
		}
		if _, err := f.WriteString(magic); err != nil {
			return fail(err)
		}
		return &log{file: f}, nil
	}
	if err := f.Truncate(int64(good)); err != nil {
		return fail(err)
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return fail(err)
	}
	return &log{file: f}, nil
}

func lastEpoch(list []identity.Revocation) uint64 {
	if len(list) == 0 {
		return 0
	}
	return list[len(list)-1].Epoch
}

// parseLog returns how many bytes from the start are good, and what they hold.
func parseLog(b []byte) (good int, list []identity.Revocation) {
	if !bytes.HasPrefix(b, []byte(magic)) {
		return 0, nil
	}
	r := bufio.NewReader(bytes.NewReader(b[len(magic):]))
	good = len(magic)
	for {
		header := make([]byte, wire.ControlHeaderLen)
		if _, err := io.ReadFull(r, header); err != nil {
			return good, list
		}
		t, n, err := wire.ParseControlHeader(header)
		if err != nil || t != wire.TypeRevocation {
			return good, list
		}
		rest := make([]byte, n+sumLen)
		if _, err := io.ReadFull(r, rest); err != nil {
			return good, list
		}
		m, err := wire.ParseRevocation(rest[:n])
		if err != nil || !bytes.Equal(rest[n:], sumOf(append(header, rest[:n]...))) {
			return good, list
		}
		list = append(list, m.Revocation)
		good += wire.ControlHeaderLen + n + sumLen
	}
}

func sumOf(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:sumLen]
}

func (l *log) add(m wire.Revocation) {
	b := wire.AppendMessage(nil, m)
	if _, err := l.file.Write(append(b, sumOf(b)...)); err != nil && l.err == nil {
		l.err = err
	}
}

// sync makes what was added last.
func (l *log) sync() error {
	if l.err != nil {
		return l.err
	}
	return l.file.Sync()
}

func (l *log) close() { l.file.Close() }

// takeRevocation takes one: every handshake from here on counts it.
func (k *Keeper) takeRevocation(m wire.Revocation) {
	if err := k.credentials.Revocations().Add(m.Revocation); err != nil {
		k.mu.Lock()
		k.missing++
		first := k.missing == 1
		k.mu.Unlock()
		if first {
			k.Log.Error("revocation of the server not taken; those that are held go on", "revoked", m.String(), "error", err)
		}
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.revoked.add(m)
	k.unsynced++
	k.Log.Debug("revoked", "epoch", m.Epoch, "what", m.String())
	k.poke()
}

// complete takes that the server has told all.
func (k *Keeper) complete(epoch uint64) {
	held := k.credentials.Revocations().Epoch()
	k.mu.Lock()
	defer k.mu.Unlock()
	if epoch >= held {
		k.regressed = false
		return
	}
	first := !k.regressed
	k.regressed, k.behind = true, epoch
	if first {
		if k.send != nil { // what it has revoked since may have an epoch that is held here for something else
			k.send(wire.RevocationsHeld{})
		}
		k.Log.Error("epoch regression: the server has lost revocations; those that are held here go on", "server", epoch, "here", held)
	}
}

// act makes what was revoked last, and has what runs judged anew.
func (k *Keeper) act() {
	k.mu.Lock()
	fresh := k.unsynced
	k.unsynced = 0
	var err error
	if fresh > 0 {
		err = k.revoked.sync()
	}
	k.mu.Unlock()
	if fresh == 0 {
		return
	}
	k.Log.Info("revocations taken", "count", fresh, "epoch", k.credentials.Revocations().Epoch())
	if own, perr := identity.ParseChain(k.credentials.Certificate().Certificate); perr == nil {
		if rerr := k.credentials.Recheck(own); rerr != nil {
			k.Log.Error("this machine's own certificate was revoked: nobody takes it any more; have the name invited anew, and join with another folder", "error", rerr)
		}
	}
	if err != nil {
		k.Log.Error("revocations are not kept for the next start", "error", err)
	}
	if k.hooks.Revoked != nil {
		k.hooks.Revoked()
	}
}

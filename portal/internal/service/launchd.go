package service

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// label is what launchd calls the service.
const label = "org.netport.portal"

// launchd is the manager of macOS.
type launchd struct {
	dir    string // for property lists
	domain string // "system", or "gui/" and a user's number
	// owner returns the user of a file, for the service to run as; "" is root. It is nil
	// where the user of this process, who is not root, has services of his own.
	owner func(file string) (string, error)
	// ctl runs launchctl and returns what it prints.
	ctl func(args ...string) (string, error)
}

func (l *launchd) plist() string { return filepath.Join(l.dir, label+".plist") }

func (l *launchd) target() string { return l.domain + "/" + label }

// Install implements Manager.
func (l *launchd) Install(j Job) (notes []string, err error) {
	user := ""
	if l.owner != nil {
		if user, err = l.owner(j.File); err != nil {
			return nil, err
		}
		if user == "" {
			notes = append(notes, "It runs as root, whose the configuration is. It needs no rights: chown -R its folder to a user, and install it again.")
		}
	}
	log := filepath.Join(filepath.Dir(j.File), "portal.log")
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of property lists: %w", err)
	}
	// launchd reads no list that others may write in; all may read it.
	if err := os.WriteFile(l.plist(), propertyList(j, user, log), 0o644); err != nil {
		return nil, fmt.Errorf("write the property list: %w", err)
	}
	if err := os.Chmod(l.plist(), 0o644); err != nil {
		return nil, fmt.Errorf("write the property list: %w", err)
	}
	l.ctl("bootout", l.target()) // which fails if none is there
	if out, err := l.ctl("bootstrap", l.domain, l.plist()); err != nil {
		return nil, fmt.Errorf("launchctl bootstrap: %w: %s", err, firstLine(out))
	}
	return append(notes, "Its log is "+log+"; nothing shortens it but you."), nil
}

// Remove implements Manager.
func (l *launchd) Remove() error {
	if _, err := os.Lstat(l.plist()); errors.Is(err, fs.ErrNotExist) {
		return errors.New("it is not installed")
	}
	out, stopped := l.ctl("bootout", l.target())
	if err := os.Remove(l.plist()); err != nil {
		return err
	}
	if _, err := l.ctl("print", l.target()); err == nil && stopped != nil { // it still runs
		return fmt.Errorf("launchctl bootout: %w: %s", stopped, firstLine(out))
	}
	return nil
}

// Status implements Manager.
func (l *launchd) Status() (State, error) {
	if _, err := os.Lstat(l.plist()); errors.Is(err, fs.ErrNotExist) {
		return State{Text: "not installed"}, nil
	} else if err != nil {
		return State{}, err
	}
	out, err := l.ctl("print", l.target())
	if err != nil {
		return State{Installed: true, Text: "installed, but launchd does not know it: " + firstLine(out)}, nil
	}
	s := State{Installed: true, Text: "installed, and does not run"}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " = ")
		switch key {
		case "state":
			s.Running = value == "running"
		case "pid":
			s.Text = "installed, and runs as process " + value
		case "last exit code":
			if !s.Running {
				s.Text += "; it ended with exit code " + value
			}
		}
	}
	return s, nil
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}

// propertyList returns what launchd is to know. user is whom the service runs as; "": as
// whoever the domain is of.
func propertyList(j Job, user, log string) []byte {
	var b strings.Builder
	text := func(s string) string {
		var e strings.Builder
		xml.EscapeText(&e, []byte(s)) // a strings.Builder takes all
		return "<string>" + e.String() + "</string>"
	}
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>
	` + text(label) + `
	<key>ProgramArguments</key>
	<array>
		` + text(j.Program) + "\n")
	for _, a := range j.args() {
		b.WriteString("\t\t" + text(a) + "\n")
	}
	b.WriteString("\t</array>\n")
	if user != "" {
		b.WriteString("\t<key>UserName</key>\n\t" + text(user) + "\n")
	}
	// A portal that stops lets connections finish for a minute at most.
	b.WriteString(`	<key>RunAtLoad</key>
	<true/>
	<key>KeepAlive</key>
	<true/>
	<key>ExitTimeOut</key>
	<integer>90</integer>
	<key>StandardErrorPath</key>
	` + text(log) + `
</dict>
</plist>
`)
	return []byte(b.String())
}

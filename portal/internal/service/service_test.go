package service

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/netport/netport/proto/command"
)

// fakeManager is a system that has the portal as a service or has not.
type fakeManager struct {
	job    *Job
	refuse error
}

func (f *fakeManager) Install(j Job) ([]string, error) {
	if f.refuse == nil {
		f.job = &j
	}
	return []string{"Its log is over there."}, f.refuse
}

func (f *fakeManager) Remove() error {
	f.job = nil
	return f.refuse
}

func (f *fakeManager) Status() (State, error) {
	if f.job == nil {
		return State{Text: "not installed"}, f.refuse
	}
	return State{Installed: true, Running: true, Text: "runs as process 7\x1b[2J"}, f.refuse
}

func TestCommandsOfTheService(t *testing.T) {
	m := &fakeManager{}
	run := func(args string) (out, errs string, code int) {
		root := command.Root("netport-portal", "Test")
		root.AddCommand(Command(m, Words{System: "Plan 9"}, func(file string) (Job, error) {
			if file == "missing" {
				return Job{}, errors.New("read missing: no such file")
			}
			return Job{Program: "/p", File: file}, nil
		}))
		var o, e bytes.Buffer
		code = command.Run(t.Context(), root, strings.Fields(args), nil, &o, &e)
		return o.String(), e.String(), code
	}
	for _, tt := range []struct {
		args, out, errs string
		code            int
	}{
		{"service status", "not installed\n", "", 0},
		{"service install --config missing", "", "netport-portal: install the service: read missing: no such file\n", 1},
		{"service install --config a.toml", "The portal runs as a service, and starts with the system.\nIts log is over there.\n", "", 0},
		{"service status", "runs as process 7?[2J\n", "", 0},
		{"service status --json", "{\n  \"installed\": true,\n  \"running\": true,\n  \"text\": \"runs as process 7\\u001b[2J\"\n}\n", "", 0},
		{"service remove", "", "", 0},
		{"service status", "not installed\n", "", 0},
		{"service nonsense", "", "netport-portal: unknown command \"nonsense\"; see \"netport-portal service --help\"\n", 2},
	} {
		if out, errs, code := run(tt.args); out != tt.out || errs != tt.errs || code != tt.code {
			t.Errorf("%s: exit %d, %q, %q; want %d, %q, %q", tt.args, code, out, errs, tt.code, tt.out, tt.errs)
		}
	}
	m.refuse = errors.New("access denied")
	for _, args := range []string{"service install", "service remove", "service status"} {
		if _, errs, code := run(args); code != 1 || !strings.HasSuffix(errs, "the service: access denied\n") {
			t.Errorf("%s: exit %d, %q", args, code, errs)
		}
	}
	if out, _, _ := run("service --help"); !strings.Contains(out, "Have Plan 9 run the portal") {
		t.Errorf("help:\n%s", out)
	}
}

package service

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"

	"github.com/netport/netport/proto/folder"
)

// settle is how long a service may take to start or stop before it is left alone: it lets
// connections finish for a minute at most.
const settle = 75 * time.Second

// System returns the manager of this machine.
func System() (Manager, Words) {
	return scm{}, Words{
		System: "Windows",
		Account: `It runs as the account "NT SERVICE\` + folder.Service + `", which has no rights but those that
every service has, and gets the folder of the configuration. Its log is in the event log,
under Windows Logs, Application. To install and to remove it takes an administrator.`,
		Reload: "sc control " + folder.Service + " paramchange",
	}
}

// scm is the service control manager.
type scm struct{}

// Install implements Manager.
func (scm) Install(j Job) (notes []string, err error) {
	if err := folder.CheckAbove(j.Program); err != nil {
		return nil, fmt.Errorf("the program would not be safe: %w", err)
	}
	if err := apart(j); err != nil {
		return nil, err
	}
	m, err := mgr.Connect()
	if err != nil {
		return nil, rights(err)
	}
	defer m.Disconnect()
	s, err := m.CreateService(folder.Service, j.Program, mgr.Config{
		StartType:        mgr.StartAutomatic,
		ErrorControl:     mgr.ErrorNormal,
		DisplayName:      "Netport portal",
		Description:      "Forwards connections between two private networks, as the server's policy says.",
		ServiceStartName: `NT SERVICE\` + folder.Service,
	}, j.args()...)
	if errors.Is(err, windows.ERROR_SERVICE_EXISTS) {
		return nil, errors.New("it is installed already; to change what it runs: netport-portal service remove, and install it again")
	} else if err != nil {
		return nil, rights(err)
	}
	defer s.Close()
	if err := prepare(s, j); err != nil {
		return nil, errors.Join(err, s.Delete(), forgetEvents())
	}
	if err := s.Start(); err != nil {
		err = fmt.Errorf("start it: %w", err)
		if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
			err = fmt.Errorf(`%w; put the program where services may read it, as in C:\Program Files\Netport`, err)
		}
		return nil, errors.Join(err, s.Delete(), forgetEvents())
	}
	if state, err := wait(s, svc.StartPending); err != nil {
		return nil, err
	} else if state != svc.Running {
		return nil, errors.New("it is installed, but has not started: the event log says why (Windows Logs, Application)")
	}
	return []string{"Its log is in the event log: Windows Logs, Application."}, nil
}

// apart refuses a folder of the configuration in which there is more than a portal's: the
// service gets all of it.
func apart(j Job) error {
	dir := filepath.Dir(j.File)
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	state, err := filepath.Abs(j.Config.State)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.IsDir() && !strings.EqualFold(filepath.Join(dir, e.Name()), state) {
			return fmt.Errorf("the service gets the folder %s, and %s in it is not the portal's: give the portal a folder of its own", dir, e.Name())
		}
	}
	return nil
}

// prepare gives a service what it needs before it starts.
func prepare(s *mgr.Service, j Job) error {
	err := s.SetRecoveryActions([]mgr.RecoveryAction{
		{Type: mgr.ServiceRestart, Delay: time.Second},
		{Type: mgr.ServiceRestart, Delay: 10 * time.Second},
		{Type: mgr.ServiceRestart, Delay: time.Minute},
	}, uint32(time.Hour/time.Second))
	if err == nil {
		err = s.SetRecoveryActionsOnNonCrashFailures(true)
	}
	if err != nil {
		return fmt.Errorf("have it started again when it fails: %w", err)
	}
	if err := forgetEvents(); err != nil { // of an earlier one
		return err
	}
	if err := eventlog.InstallAsEventCreate(folder.Service, eventlog.Info|eventlog.Warning|eventlog.Error); err != nil {
		return fmt.Errorf("make it known to the event log: %w", err)
	}
	if err := folder.Make(j.Config.State); err != nil {
		return fmt.Errorf("make state folder: %w", err)
	}
	for _, path := range []string{filepath.Dir(j.File), j.Config.State, j.Config.Key, j.Config.Certificate, j.Config.CA} {
		if err := folder.ForService(path); err != nil {
			return err
		}
	}
	return nil
}

func forgetEvents() error {
	if err := eventlog.Remove(folder.Service); err != nil && !errors.Is(err, windows.ERROR_FILE_NOT_FOUND) {
		return fmt.Errorf("have the event log forget it: %w", err)
	}
	return nil
}

// Remove implements Manager.
func (scm) Remove() error {
	m, err := mgr.Connect()
	if err != nil {
		return rights(err)
	}
	defer m.Disconnect()
	s, err := m.OpenService(folder.Service)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return errors.New("it is not installed")
	} else if err != nil {
		return rights(err)
	}
	defer s.Close()
	if _, err := s.Control(svc.Stop); err == nil {
		if _, err := wait(s, svc.StopPending); err != nil {
			return err
		}
	} else if !errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return fmt.Errorf("stop it: %w", err)
	}
	if err := s.Delete(); err != nil {
		return err
	}
	return forgetEvents()
}

// wait waits until a service has left a state, and returns the one it is in.
func wait(s *mgr.Service, leave svc.State) (svc.State, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(settle); ; <-tick.C {
		status, err := s.Query()
		if err != nil {
			return 0, fmt.Errorf("ask how it is: %w", err)
		}
		if status.State != leave || time.Now().After(end) {
			return status.State, nil
		}
	}
}

// Status implements Manager. Every user may ask.
func (scm) Status() (State, error) {
	h, err := windows.OpenSCManager(nil, nil, windows.SC_MANAGER_CONNECT)
	if err != nil {
		return State{}, rights(err)
	}
	defer windows.CloseServiceHandle(h)
	name, err := windows.UTF16PtrFromString(folder.Service)
	if err != nil {
		return State{}, err
	}
	sh, err := windows.OpenService(h, name, windows.SERVICE_QUERY_STATUS)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return State{Text: "not installed"}, nil
	} else if err != nil {
		return State{}, rights(err)
	}
	s := &mgr.Service{Name: folder.Service, Handle: sh}
	defer s.Close()
	status, err := s.Query()
	if err != nil {
		return State{}, err
	}
	state := State{Installed: true, Running: status.State == svc.Running}
	switch status.State {
	case svc.Running:
		state.Text = fmt.Sprintf("installed, and runs as process %d", status.ProcessId)
	case svc.StartPending:
		state.Text = "installed, and starts"
	case svc.StopPending:
		state.Text = "installed, and stops"
	default:
		state.Text = "installed, and does not run"
		if code := max(status.Win32ExitCode, status.ServiceSpecificExitCode); code != 0 {
			state.Text += "; it has failed: the event log says why (Windows Logs, Application)"
		}
	}
	return state, nil
}

// rights says what to do where a right is missing.
func rights(err error) error {
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return fmt.Errorf("%w; do it as an administrator: begin the command prompt with \"Run as administrator\"", err)
	}
	return err
}

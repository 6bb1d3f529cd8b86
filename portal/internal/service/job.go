package service

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/netport/netport/portal/internal/config"
)

// Find returns the job of this program with a configuration.
func Find(file string) (Job, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return Job{}, err
	}
	conf, err := config.Load(file)
	if err != nil {
		return Job{}, err
	}
	program, err := os.Executable()
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	if err != nil {
		return Job{}, fmt.Errorf("find this program: %w", err)
	}
	return Job{program, file, conf}, nil
}

// args is the command line of the service.
func (j Job) args() []string { return []string{"run", "--config", j.File} }

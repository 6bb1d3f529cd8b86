package config

import (
	"path/filepath"

	"golang.org/x/sys/windows"
)

// DefaultFile is where the configuration is looked for.
var DefaultFile = filepath.Join(programData(), "Netport", "Portal", "config.toml")

// programData is the folder for what programs keep for the whole machine. The environment
// is not asked: it is whoever's who starts a program.
func programData() string {
	dir, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, windows.KF_FLAG_DEFAULT)
	if err != nil {
		return `C:\ProgramData`
	}
	return dir
}

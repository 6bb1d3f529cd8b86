//go:build !unix

package identity

import "os"

func openFile(file string) (*os.File, error) { return os.Open(file) }

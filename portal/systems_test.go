package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// elsewhere are the files that stand for Linux's on other systems, with the words by which README.md says what is missing
// there. Those without words do the same by other means, or are about speed and memory alone.
var elsewhere = map[string]string{
	"portal/internal/carrier/rawio/rawio_other.go": "",
	"portal/internal/carrier/rawio/readv_other.go": "",
	"portal/internal/carrier/tcp_info_other.go":    "",
	"portal/internal/carrier/tcp_lowat_other.go":   "",
	"portal/internal/doctor/mtu_other.go":          "the path's MTU in `doctor`",
	"portal/internal/entry/destination_other.go":   "answers from the address that was asked",
	"portal/internal/entry/owner_other.go":         "access control lists",
	"portal/internal/exit/errno_windows.go":        "",
	"portal/internal/exit/icmp_other.go":           "",
	"portal/internal/exit/linger_windows.go":       "",
	"portal/internal/keystore/tpm/tpm_other.go":    "keys in a TPM",
	"portal/internal/network/clock_other.go":       "",
	"portal/internal/network/look_other.go":        "within 5 seconds",
	"portal/internal/path/packet/errno_windows.go": "",
	"portal/internal/path/packet/options_other.go": "",
	"portal/internal/path/tcp_other.go":            "",
	"portal/internal/users/owner_other.go":         "`users` of a listener",
	"portal/internal/vanish/look_other.go":         "whose other side has vanished",
	"proto/command/guard_files_other.go":           "access control lists",
	"proto/command/guard_memory_other.go":          "memory of the process",
	"proto/command/journal_other.go":               "",
	"proto/control/retry_other.go":                 "",
	"proto/folder/folder_other.go":                 "access control lists",
	"proto/folder/owner_other.go":                  "",
	"proto/identity/secret_other.go":               "access control lists",
	"proto/local/peer_darwin.go":                   "",
	"proto/local/peer_other.go":                    "access control lists",
	"proto/local/peer_windows.go":                  "",
	"proto/metrics/process_other.go":               "descriptors in the metrics",
	"proto/privilege/keep_other.go":                "",
	"proto/reserve/limit_other.go":                 "",
}

// TestReadmeSaysWhatOtherSystemsLack finds every file that is there for other systems, and wants that somebody has thought
// about what it leaves out, and has said so.
func TestReadmeSaysWhatOtherSystemsLack(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := strings.Join(strings.Fields(string(text)), " ")
	forOthers := regexp.MustCompile(`_(other|windows|darwin)\.go$`)
	for _, module := range []string{"portal", "proto"} {
		err := filepath.WalkDir(filepath.Join("..", module), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !forOthers.MatchString(path) {
				return err
			}
			name := filepath.ToSlash(strings.TrimPrefix(path, ".."+string(filepath.Separator)))
			words, known := elsewhere[name]
			switch {
			case !known:
				t.Errorf("%s: what do other systems lack? Say it in README.md (Limits) and note it here", name)
			case !strings.Contains(readme, words):
				t.Errorf("%s: README.md does not say %q", name, words)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

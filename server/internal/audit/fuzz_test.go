package audit

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzVerify has audit files that somebody has touched: they are judged, whatever is in them, and one line after
// another that follows it is all that is whole.
func FuzzVerify(f *testing.F) {
	first, err := encode(hash{}, Record{Event: "start"})
	if err != nil {
		f.Fatal(err)
	}
	second, err := encode(hashOf(first), Record{Event: "stop", Portal: "ann"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(append(append(first, '\n'), second...), '\n'))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(fileOf(dir, 0))), b, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := Verify(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		lines := 0
		for _, c := range b {
			if c == '\n' {
				lines++
			}
		}
		if v.Broken == "" && v.Records != lines {
			t.Fatalf("%d lines, and %d records are whole", lines, v.Records)
		}
	})
}

package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// Tail returns the last n records of a folder that are not older than since,
// oldest first. Lines that are no records are skipped.
func Tail(folder string, n int, since time.Time) ([]Record, error) {
	var list []Record
	for i := range maxFiles {
		b, err := os.ReadFile(fileOf(folder, i))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read audit: %w", err)
		}
		lines := bytes.Split(b, []byte("\n"))
		for j := len(lines) - 1; j >= 0 && len(list) < n; j-- {
			var r Record
			if json.Unmarshal(lines[j], &r) != nil {
				continue
			}
			if r.Time.Before(since) {
				break
			}
			list = append(list, r)
		}
		if len(list) == n {
			break
		}
	}
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	return list, nil
}

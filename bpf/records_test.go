//go:build linux

package bpf

import (
	"bytes"
	"maps"
	"testing"
)

func TestRecords(t *testing.T) {
	k := openTable(t, 64)
	want := map[[24]byte][]byte{
		{0: 1}:  {},
		{1: 1}:  []byte("short"),
		{23: 1}: bytes.Repeat([]byte{7}, MaxRecord),
	}
	for key, record := range want {
		if err := k.PutRecord(key, []byte("before")); err != nil {
			t.Fatal(err)
		}
		if err := k.PutRecord(key, record); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.PutRecord([24]byte{}, make([]byte, MaxRecord+1)); err == nil {
		t.Error("a record that is too long is kept")
	}
	if got := maps.Collect(k.Records()); !maps.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("records %v, want %v", got, want)
	}
	for key := range want {
		for range 2 {
			if err := k.DeleteRecord(key); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := maps.Collect(k.Records()); len(got) != 0 {
		t.Errorf("after all were deleted there are %v", got)
	}
}

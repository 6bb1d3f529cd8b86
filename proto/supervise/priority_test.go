package supervise

import "testing"

func TestLinesKeepTheirpriority(t *testing.T) {
	for line, want := range map[string]struct {
		priority int
		text     string
	}{
		"<6>level=INFO msg=\"portal running\"\n": {6, `level=INFO msg="portal running"`},
		"<4>level=WARN\r\n":                      {warningPriority, "level=WARN"},
		"<3>level=ERROR\n":                       {errorPriority, "level=ERROR"},
		"netport-portal: start portal: no\n":     {errorPriority, "netport-portal: start portal: no"},
		"<9>no priority":                         {errorPriority, "<9>no priority"},
		"<>":                                     {errorPriority, "<>"},
		"":                                       {errorPriority, ""},
		"two\nlines\n":                           {errorPriority, "two\nlines"},
	} {
		if p, text := priority(line); p != want.priority || text != want.text {
			t.Errorf("%q: %d, %q, want %d, %q", line, p, text, want.priority, want.text)
		}
	}
}

package supervise

import "strings"

// Priorities of lines, as systemd's journal and syslog number them.
const (
	errorPriority   = 3
	warningPriority = 4
)

// priority takes from a line the priority that it begins with, as daemons write it for a
// journal: "<4>text". A line without one is an error: it is what a program says last.
func priority(line string) (level int, text string) {
	line = strings.TrimRight(line, "\r\n")
	if len(line) >= 3 && line[0] == '<' && '0' <= line[1] && line[1] <= '7' && line[2] == '>' {
		return int(line[1] - '0'), line[3:]
	}
	return errorPriority, line
}

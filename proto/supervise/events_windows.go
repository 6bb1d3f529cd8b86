package supervise

import (
	"fmt"
	"strings"

	"golang.org/x/sys/windows/svc/eventlog"
)

// The numbers of the events, by how bad they are; the file of messages that Windows has for
// programs without their own knows those up to 1,000.
const (
	eventInfo = iota + 1
	eventWarning
	eventError
)

// Events writes lines to the event log of Windows, each as an event. Lines that begin with
// a priority (priority) are of its level.
type Events struct{ log *eventlog.Log }

// OpenEvents opens the event log for a source.
func OpenEvents(source string) (*Events, error) {
	log, err := eventlog.Open(source)
	if err != nil {
		return nil, fmt.Errorf("open the event log for %s: %w", source, err)
	}
	return &Events{log}, nil
}

// Write writes one line.
func (e *Events) Write(b []byte) (int, error) {
	level, text := priority(string(b))
	text = strings.ReplaceAll(text, "\x00", " ") // which would end it
	var err error
	switch {
	case level <= errorPriority:
		err = e.log.Error(eventError, text)
	case level == warningPriority:
		err = e.log.Warning(eventWarning, text)
	default:
		err = e.log.Info(eventInfo, text)
	}
	return len(b), err
}

// Close closes the log.
func (e *Events) Close() error { return e.log.Close() }

package stage

import (
	"flag"
	"fmt"
	"runtime/debug"
	"time"
)

// watch ends the process if the story of that name is not over in time.
func watch(name string) (stop func()) {
	limit := longest()
	if limit == 0 {
		return func() {}
	}
	late := time.AfterFunc(limit, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("stage: %s has not ended within %v, half of -timeout: it waits for what never comes, which is below", name, limit))
	})
	return func() { late.Stop() }
}

// longest is for how long a story may be on the stage; 0: for ever, as the whole package.
func longest() time.Duration {
	f := flag.Lookup("test.timeout")
	if f == nil {
		return 0 // no test: a program that uses the lab
	}
	limit, err := time.ParseDuration(f.Value.String())
	if err != nil {
		panic(fmt.Sprintf("stage: -timeout: %v", err)) // flag has read it
	}
	return limit / 2
}

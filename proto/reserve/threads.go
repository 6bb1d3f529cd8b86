package reserve

import (
	"runtime"
	"sync"
)

// threads is how many threads a daemon has from the start: more than it was ever seen
// to need, since each waits in one system call at most that the runtime's poller does
// not cover, which are those on files.
const threads = 24

// Threads makes the process's threads now. The runtime keeps those that have nothing to
// do, and ends the process when it needs another and the system gives none, as at a
// service's TasksMax= or a container's limit of processes.
func Threads() {
	var made, waiting sync.WaitGroup
	made.Add(threads)
	all := make(chan struct{})
	for range threads {
		waiting.Go(func() {
			runtime.LockOSThread() // what is locked to a thread keeps it while it waits
			defer runtime.UnlockOSThread()
			made.Done()
			<-all
		})
	}
	made.Wait()
	close(all)
	waiting.Wait()
}

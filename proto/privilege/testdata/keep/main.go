// Command keep is a process with several threads that keeps CAP_NET_ADMIN alone
// and prints what the kernel says of each thread then.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/proto/privilege"
)

func main() {
	release := make(chan struct{})
	for range 4 {
		ready := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(ready)
			<-release
		}()
		<-ready
	}
	if err := privilege.Keep(privilege.Of(unix.CAP_NET_ADMIN)); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	threads, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for _, name := range threads {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // a thread that has ended
		}
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "Cap") || strings.HasPrefix(line, "NoNewPrivs") || strings.HasPrefix(line, "Groups") {
				fmt.Print(strings.Join(strings.Fields(line), " ") + " ")
			}
		}
		fmt.Println()
	}
	close(release)
}

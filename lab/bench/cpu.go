package main

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpu tells how much processor time a measurement takes: that of this program and of the others that take part, with all
// that the kernel does for them.
//
// The work on a packet is done in softirqs. The kernel runs one on the processor that asked for it, as soon as that
// leaves a system call, and charges it to whoever happens to run there: to the sender for the most part. What is left
// over goes to ksoftirqd. So no process's time says what a relay costs, but the sum of the times of all who take part does,
// less what they take when there is no relay. Other programs on the machine are not in that sum.
type cpu struct {
	processes []int
	// apart says that the kernel counts the time of interrupts and softirqs apart from the processes', and only for
	// the whole machine (CONFIG_IRQ_TIME_ACCOUNTING).
	apart bool
}

// newCPU counts this program, the kernel's threads for softirqs, and the other processes.
func newCPU(others ...int) (cpu, error) {
	c := cpu{processes: append(others, os.Getpid())}
	threads, err := softirqThreads()
	if err != nil {
		return cpu{}, err
	}
	c.processes = append(c.processes, threads...)
	c.apart, err = countsApart()
	return c, err
}

// softirqThreads are the processes ksoftirqd/0 and so on.
func softirqThreads() (pids []int, err error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		comm, err := os.ReadFile(name)
		if err != nil || !strings.HasPrefix(string(comm), "ksoftirqd/") {
			continue // it may have ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	if len(pids) == 0 {
		return nil, errors.New("look for the kernel's threads ksoftirqd: there are none in /proc")
	}
	return pids, nil
}

// countsApart finds out whether the running kernel was built with CONFIG_IRQ_TIME_ACCOUNTING.
func countsApart() (bool, error) {
	config, err := kernelConfig()
	if err != nil {
		return false, fmt.Errorf("read how the kernel was built, to know whom it charges softirqs to: %w", err)
	}
	defer config.Close()
	lines := bufio.NewScanner(config)
	for lines.Scan() {
		if lines.Text() == "CONFIG_IRQ_TIME_ACCOUNTING=y" {
			return true, nil
		}
	}
	return false, lines.Err()
}

func kernelConfig() (io.ReadCloser, error) {
	packed, err := os.Open("/proc/config.gz")
	if err != nil {
		return os.Open("/boot/config-" + kernel())
	}
	config, err := gzip.NewReader(packed)
	if err != nil {
		return nil, errors.Join(err, packed.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{config, packed}, nil
}

// spent is the time so far.
func (c cpu) spent() (sum time.Duration, err error) {
	for _, pid := range c.processes {
		var t unix.Timespec
		if err := unix.ClockGettime(processClock(pid), &t); err != nil {
			return 0, fmt.Errorf("read the processor time of process %d: %w", pid, err)
		}
		sum += time.Duration(t.Nano())
	}
	if !c.apart {
		return sum, nil
	}
	softirqs, err := softirqTime()
	return sum + softirqs, err
}

// processClock is the clock of a process's processor time, as clock_getcpuclockid(3) makes it.
func processClock(pid int) int32 { return int32(^pid)<<3 | 2 }

// softirqTime is what all processors have spent with interrupts and softirqs so far, from the first line of /proc/stat.
func softirqTime() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	var cpu string
	var user, nice, system, idle, iowait, irq, softirq time.Duration
	if _, err := fmt.Sscan(line, &cpu, &user, &nice, &system, &idle, &iowait, &irq, &softirq); err != nil {
		return 0, fmt.Errorf("read /proc/stat: %w in %q", err, line)
	}
	const tick = time.Second / 100 // USER_HZ
	return (irq + softirq) * tick, nil
}

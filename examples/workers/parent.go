package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// A plan says how long a run is and how rough.
type plan struct {
	jobs, workers   int
	every, patience time.Duration
}

// run starts broker and workers, publishes the jobs, kills workers until all jobs are done, and reports. A lost job is
// an error.
func run(ctx context.Context, p plan, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "workers-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := natsembed.Start(natsembed.Config{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	driver, err := natspubsub.Open(ctx, server.URL(), natspubsub.Config{})
	if err != nil {
		return err
	}
	bus := pubsub.New(driver)
	defer func() { err = errors.Join(err, bus.Close()) }()
	// The group stands from here on, so that it misses no job; the parent takes none itself.
	if c, err := bus.Open(ctx, jobs); err != nil {
		return err
	} else if err := c.Close(); err != nil {
		return err
	}
	if err := publish(ctx, bus, p.jobs); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d jobs are published, %d workers start\n", p.jobs, p.workers)
	c := &crew{url: server.URL(), done: make(map[string]int), all: make(chan struct{}), want: p.jobs}
	defer func() { err = errors.Join(err, c.dismiss()) }()
	return c.supervise(ctx, p, out)
}

// A crew is the workers that live, and what all have done.
type crew struct {
	url     string
	workers []*worker
	pipes   sync.WaitGroup

	mu      sync.Mutex
	done    map[string]int // how often, by job
	rescued int            // jobs whose first attempt was not the one that did it
	want    int
	all     chan struct{} // closed when each job has been done
}

type worker struct {
	cmd   *exec.Cmd
	stdin io.Closer
	begun atomic.Bool // it has done a job
}

// supervise keeps p.workers at work, and kills the oldest again and again.
func (c *crew) supervise(ctx context.Context, p plan, out io.Writer) error {
	for range p.workers {
		if err := c.hire(); err != nil {
			return err
		}
	}
	patience := time.After(p.patience)
	for kills := 0; ; {
		select {
		case <-c.all:
			return c.report(out, kills)
		case <-patience:
			return c.report(out, kills)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(p.every/2 + rand.N(p.every)): // not in step with the leases
		}
		victim := c.workers[0]
		if !victim.begun.Load() {
			continue // a kill shows nothing, and on a slow machine none would ever get to work
		}
		c.workers = c.workers[1:]
		if err := victim.cmd.Process.Kill(); err != nil { // SIGKILL: it cannot tidy up
			return err
		}
		kills++
		fmt.Fprintf(out, "worker %d is killed, another starts; %d jobs are done\n", victim.cmd.Process.Pid, c.count())
		if err := c.hire(); err != nil {
			return err
		}
	}
}

// hire starts this program again, as a worker.
func (c *crew) hire() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "-worker", c.url) //nolint:noctx // a worker ends when its standard input does
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	w := &worker{cmd: cmd, stdin: stdin}
	c.workers = append(c.workers, w)
	c.pipes.Go(func() {
		var job string
		var attempt int
		for lines := bufio.NewReader(stdout); ; {
			if _, err := fmt.Fscanln(lines, &job, &attempt); err != nil {
				break
			}
			w.begun.Store(true)
			c.note(job, attempt)
		}
		_ = cmd.Wait() // of one that was killed it says so
	})
	return nil
}

// dismiss has the workers drain and waits for them.
func (c *crew) dismiss() error {
	var errs []error
	for _, w := range c.workers {
		errs = append(errs, w.stdin.Close())
	}
	c.pipes.Wait()
	return errors.Join(errs...)
}

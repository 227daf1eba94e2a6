package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

const (
	gatewayRole = "gateway"
	brokerRole  = "broker"

	stopPatience   = 30 * time.Second
	restartPause   = 300 * time.Millisecond // after a process has ended by itself
	maxNeverOpened = 20                     // times in a row that a process may end before it is open
)

// A fleet is all processes of a shop. Each instance has one at a time, and another when that has ended, until the fleet is
// called in.
type fleet struct {
	fail   func(error) // what it cannot mend
	stderr io.Writer

	cabling *cabling
	berths  []*berth

	mu               sync.Mutex
	started, mishaps int
	struck           map[ill]int
}

// A berth is the place of one instance.
type berth struct {
	posting *posting
	quit    chan struct{} // closed when the instance is not wanted any more
	left    chan struct{} // closed when nothing runs here any more

	mu   sync.Mutex
	now  *process      // the last one that was started
	away time.Duration // how long the next one is waited for, after a kill
	past result        // what the earlier ones have counted
}

func newFleet(fail func(error), stderr io.Writer) *fleet {
	return &fleet{fail: fail, stderr: stderr, cabling: newCabling(), struck: map[ill]int{}}
}

// begin starts the instance and keeps it running.
func (f *fleet) begin(p *posting) error {
	b := &berth{posting: p, quit: make(chan struct{}), left: make(chan struct{})}
	if err := f.start(b); err != nil {
		return err
	}
	f.berths = append(f.berths, b)
	go func() {
		defer close(b.left)
		f.keep(b)
	}()
	return nil
}

func (f *fleet) start(b *berth) error {
	c, err := startProcess(b.posting)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.now = c
	b.mu.Unlock()
	f.mu.Lock()
	f.started++
	f.mu.Unlock()
	return nil
}

// keep starts another process whenever one has ended.
func (f *fleet) keep(b *berth) {
	for neverOpened := 0; ; {
		c := b.process()
		<-c.ended
		if c.hasOpened() {
			neverOpened = 0
		} else if neverOpened++; neverOpened == maxNeverOpened {
			f.fail(fmt.Errorf("%s: %w: %w: %s", b.posting.Name, errNeverOpen, c.err, shortly(c.stderr.String())))
			return
		}
		pause, wanted := f.mourn(b, c)
		if !wanted {
			return
		}
		select {
		case <-b.quit:
			return
		case <-time.After(pause):
		}
		b.past.add(c.counted()) // nobody else looks at the past
		if err := f.start(b); err != nil {
			f.fail(err)
			return
		}
	}
}

// mourn says how long the next process is waited for, if one is wanted.
func (f *fleet) mourn(b *berth, c *process) (pause time.Duration, wanted bool) {
	if isClosed(b.quit) {
		return 0, false
	}
	b.mu.Lock()
	pause, b.away = b.away, 0
	b.mu.Unlock()
	if pause > 0 {
		return pause, true
	}
	f.mu.Lock()
	f.mishaps++
	f.mu.Unlock()
	say(f.stderr, "%s has ended by itself (%v) and is started again: %s", b.posting.Name, c.err, shortly(c.stderr.String()))
	return restartPause, true
}

func (b *berth) process() *process {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

// kill ends what runs here, if it has come so far, and has the next one wait.
func (b *berth) kill(away time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now.hasEnded() {
		return false
	}
	b.away = away
	b.now.kill()
	return true
}

// stop ends the instance in order. It is called once.
func (b *berth) stop() error {
	close(b.quit)
	var errs []error
	for {
		c := b.process()
		if !c.hasEnded() { // else it did before it was asked to, and that has been told
			errs = append(errs, named(b.posting.Name, c.stop(stopPatience)))
		}
		select {
		case <-b.left:
			if b.process() == c {
				return errors.Join(errs...)
			}
		case <-time.After(time.Millisecond): // another one may have been on its way
		}
	}
}

func named(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

func (f *fleet) berth(name string) *berth {
	i := slices.IndexFunc(f.berths, func(b *berth) bool { return b.posting.Name == name })
	return f.berths[i]
}

// await waits until every instance is open.
func (f *fleet) await(ctx context.Context) error {
	for _, b := range f.berths {
		c := b.process()
		select {
		case <-c.open:
		case <-c.ended:
			return fmt.Errorf("%s has ended: %w: %s", b.posting.Name, c.err, shortly(c.stderr.String()))
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", b.posting.Name, errNeverOpen, ctx.Err())
		}
	}
	return nil
}

// callIn stops the instances of these roles, all at once.
func (f *fleet) callIn(roles ...string) error {
	errs := make(chan error, len(f.berths))
	n := 0
	for _, b := range f.berths {
		if slices.Contains(roles, b.posting.Role) {
			n++
			go func() { errs <- b.stop() }()
		}
	}
	var all []error
	for range n {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// counted is what all processes, living and dead, have counted.
func (f *fleet) counted() (r result) {
	for _, b := range f.berths {
		r.add(b.past)
		r.add(b.process().counted())
	}
	return r
}

// figures is what happened to the fleet, for the report.
func (f *fleet) figures() []figure {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []figure{
		{"processes started", f.started},
		{"processes killed", f.struck[killed]},
		{"processes paused", f.struck[paused]},
		{"processes that ended by themselves", f.mishaps},
		{"connections cut", f.struck[cut]},
		{"connections slowed", f.struck[slowed]},
		{"connections stalled", f.struck[stalled]},
	}
}

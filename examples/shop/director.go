package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A director makes trouble by the schedule, until it is calmed.
type director struct {
	fleet *fleet
	calm  func() error // ends the trouble and returns when every process runs again; may be called more than once
}

// direct begins the trouble, if there is to be any.
func (s *shop) direct() *director {
	d := &director{fleet: s.fleet}
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	if s.cfg.chaos {
		var processes, nodes []string
		for _, b := range s.fleet.berths {
			if b.posting.Node != nil {
				nodes = append(nodes, b.posting.Name)
			} else if b.posting.Role != brokerRole {
				processes = append(processes, b.posting.Name)
			}
		}
		plan := newSchedule(s.cfg.seed, processes, s.fleet.cabling.names, nodes)
		all.Go(func() { d.run(ctx, plan, &all, s.fail) })
	}
	d.calm = sync.OnceValue(func() error {
		stop()
		all.Wait()
		return d.settle(s.alive)
	})
	return d
}

// run carries out the plan. What lasts goes on beside it. Nobody is killed before those that were are back: on a machine that
// needs seconds to start a process there would soon be none left, which shows nothing. Until then, and for as long again, the time
// of the plan stands still.
func (d *director) run(ctx context.Context, plan *schedule, all *sync.WaitGroup, fail func(error)) {
	for begun := time.Now(); ; {
		next, ok := plan.strike()
		if !ok {
			return
		}
		wait := time.NewTimer(time.Until(begun.Add(next.at)))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
		if next.kind == killed {
			due := time.Now()
			if d.settle(ctx) != nil {
				return
			}
			if sleep(ctx, time.Since(due)); ctx.Err() != nil {
				return
			}
			begun = begun.Add(time.Since(due))
		}
		say(d.fleet.stderr, "%v", next)
		all.Go(func() {
			if err := d.strike(ctx, next); err != nil {
				fail(err)
			}
		})
	}
}

func (d *director) strike(ctx context.Context, s strike) error {
	switch s.kind {
	case killed:
		if d.fleet.berth(s.whom).kill(s.last) {
			d.fleet.note(s.kind)
		}
		return nil
	case paused:
		c := d.fleet.berth(s.whom).process()
		d.fleet.note(s.kind)
		c.pause()
		defer c.resume()
		sleep(ctx, s.last)
		return nil
	default:
		d.fleet.note(s.kind)
		return d.fleet.cabling.links[s.whom].suffer(ctx, s.kind, s.last)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
}

// settle waits until every instance has a process that is open.
func (d *director) settle(ctx context.Context) error {
	for _, b := range d.fleet.berths {
		for c := b.process(); !c.hasOpened() || c.hasEnded(); c = b.process() {
			if sleep(ctx, settlingCheck); ctx.Err() != nil {
				return named(b.posting.Name, errors.Join(errNeverOpen, context.Cause(ctx)))
			}
		}
	}
	return nil
}

func (f *fleet) note(kind ill) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.struck[kind]++
}

package caches

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/bench/cases"
)

// source is a source whose loads can be held up after they have read.
type source struct {
	mu    sync.Mutex
	value any
	gate  chan struct{} // nil: loads end at once

	held chan struct{} // receives when a load has read and waits
	back atomic.Int64  // loads that have ended
}

func newSource(value any) *source { return &source{value: value, held: make(chan struct{}, 64)} }

func (s *source) load(context.Context, string) (any, error) {
	s.mu.Lock()
	v, gate := s.value, s.gate
	s.mu.Unlock()
	if gate != nil {
		s.held <- struct{}{}
		<-gate
	}
	s.back.Add(1)
	return v, nil
}

// hold makes loads wait after they have read, until release is called.
func (s *source) hold() (release func()) {
	gate := make(chan struct{})
	s.mu.Lock()
	s.gate = gate
	s.mu.Unlock()
	return func() { close(gate) }
}

// write changes the source, and lets loads that begin from now on end at once.
func (s *source) write(v any) {
	s.mu.Lock()
	s.value, s.gate = v, nil
	s.mu.Unlock()
}

func deleteDuringLoad(open func(spec) opened) error {
	return duringLoad(open, func(c opened) { c.remove("k") }, "new")
}

func setDuringLoad(open func(spec) opened) error {
	return duringLoad(open, func(c opened) { c.set("k", "set") }, "set")
}

// duringLoad changes the cache while a load that has read the old value is under way.
func duringLoad(open func(spec) opened, change func(opened), want any) error {
	s := newSource("old")
	c := open(spec{load: s.load})
	release := s.hold()
	leader := async(func() { _, _ = c.read("k") })
	if err := within(s.held, "nothing is loaded"); err != nil {
		return err
	}
	return changeWins(c, s, release, change, want, leader)
}

func deleteDuringRefresh(open func(spec) opened) error {
	return duringRefresh(open, func(c opened) { c.remove("k") }, "new")
}

func setDuringRefresh(open func(spec) opened) error {
	return duringRefresh(open, func(c opened) { c.set("k", "set") }, "set")
}

// duringRefresh changes the cache while a background refresh that has read the old value is under way.
func duringRefresh(open func(spec) opened, change func(opened), want any) error {
	const due = 100 * time.Millisecond
	s := newSource("old")
	c := open(spec{load: s.load, refreshAfter: due})
	if _, err := c.read("k"); err != nil {
		return err
	}
	cases.Pause(due * 3 / 2)
	release := s.hold()
	reader := async(func() { _, _ = c.read("k") })
	if err := within(s.held, "nothing is refreshed"); err != nil {
		return err
	}
	if err := within(reader, "the caller waits for the refresh"); err != nil {
		return err
	}
	return changeWins(c, s, release, change, want, reader)
}

// changeWins changes the source and then the cache, lets the older load end, and looks at what stays. A library may let the change
// wait for the load.
func changeWins(c opened, s *source, release func(), change func(opened), want any, reader <-chan struct{}) error {
	s.write("new")
	before := s.back.Load()
	changed := async(func() { change(c) })
	select {
	case <-changed:
	case <-time.After(50 * time.Millisecond):
	}
	release()
	if err := within(changed, "the change hangs"); err != nil {
		return err
	}
	if err := within(reader, "the caller hangs"); err != nil {
		return err
	}
	if !cases.Eventually(patience, func() bool { return s.back.Load() > before }) {
		return errors.New("the load never ends")
	}
	cases.Pause(30 * time.Millisecond) // in which a refresh in the background would be stored
	v, err := c.read("k")
	if err != nil || v != want {
		return fmt.Errorf("afterwards a caller gets %w, not %#v", result(v, err), want)
	}
	return nil
}

package cachetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/cache"
)

// checkRaces lets loads race with writers, who change the source and then delete or set the entry. Whenever all is quiet
// an entry must be as new as its source.
func checkRaces(ctx context.Context, s subject) error {
	const rounds = 150
	var sources [2]source
	for round := range rounds {
		if err := race(ctx, s, &sources, round); err != nil {
			return err
		}
		for n := range sources {
			e, ok, err := s.a.Get(ctx, name(n))
			if err != nil {
				return err
			}
			if want := sources[n].value(); ok && e.Value != want {
				return fmt.Errorf("key %d is left at version %s, its source at %s", n, e.Value, want)
			}
		}
	}
	return nil
}

// source is where the entries of one key come from. Its writers take turns.
type source struct {
	version atomic.Int64
	writing sync.Mutex
}

func (src *source) value() string { return strconv.FormatInt(src.version.Load(), 10) }

// race runs one load and one write of each key on each handle.
func race(ctx context.Context, s subject, sources *[2]source, round int) error {
	errs := make(chan error)
	for n := range sources {
		for i, handle := range []store{s.a, s.b} {
			go func() { errs <- fillFrom(ctx, handle, name(n), &sources[n]) }()
			go func() { errs <- write(ctx, handle, name(n), &sources[n], (round+i)%3 == 0) }()
		}
	}
	var err error
	for range 4 * len(sources) {
		err = errors.Join(err, <-errs)
	}
	return err
}

func write(ctx context.Context, s store, key string, src *source, set bool) error {
	src.writing.Lock()
	defer src.writing.Unlock()
	src.version.Add(1)
	if set {
		return s.Set(ctx, key, entry(src.value()))
	}
	return s.Delete(ctx, key)
}

// fillFrom is one load, of a key without an entry or to replace the one that is there.
func fillFrom(ctx context.Context, s store, key string, src *source) error {
	old, _, err := s.Get(ctx, key)
	if err != nil {
		return err
	}
	grant, err := s.Lease(ctx, key, old.Version)
	if err != nil || grant.Lease == nil {
		return err
	}
	_, err = grant.Lease.Fill(ctx, entry(src.value()))
	return err
}

// patience is how long a notice may take.
const patience = time.Minute

// checkWatch watches one handle while the other makes changes.
func checkWatch(ctx context.Context, s subject) error {
	watcher, ok := s.a.(cache.Watcher[string])
	if !ok {
		return errNoWatcher
	}
	watching, stop := context.WithCancel(ctx)
	n := notices{changed: make(chan string, 100), lost: make(chan struct{}, 100)}
	ended := make(chan error, 1)
	go func() { ended <- watcher.Watch(watching, n.onChanged, n.onLost) }()
	err := n.follow(ctx, s)
	stop()
	select {
	case watchErr := <-ended:
		if watchErr != nil && !errors.Is(watchErr, context.Canceled) {
			err = errors.Join(err, fmt.Errorf("Watch ended: %w", watchErr))
		}
	case <-time.After(patience):
		return errors.Join(err, errors.New("Watch did not return after its context had ended"))
	}
	if n.overlapped.Load() {
		err = errors.Join(err, errors.New("Watch made two calls at a time"))
	}
	return err
}

type notices struct {
	changed    chan string
	lost       chan struct{}
	calling    atomic.Bool
	overlapped atomic.Bool
}

func (n *notices) onChanged(key string) {
	n.alone(func() { n.changed <- key })
}

func (n *notices) onLost() {
	n.alone(func() { n.lost <- struct{}{} })
}

func (n *notices) alone(call func()) {
	if !n.calling.CompareAndSwap(false, true) {
		n.overlapped.Store(true)
	}
	runtime.Gosched() // gives a second call the time to show itself
	call()
	n.calling.Store(false)
}

// follow makes changes and waits for the notice of each.
func (n *notices) follow(ctx context.Context, s subject) error {
	select {
	case <-n.lost:
	case <-time.After(patience):
		return errors.New("Watch did not call lost when it began to listen")
	}
	err := errors.Join(
		n.await("set", func() error { return s.b.Set(ctx, "set", entry("v")) }),
		n.await("set", func() error { return s.b.Delete(ctx, "set") }))
	if err != nil {
		return err
	}
	odd := "a}b{\xff\x00"
	lease, err := granted(ctx, s.b, odd, 0)
	if err != nil {
		return err
	}
	return n.await(odd, func() error { return filled(ctx, lease, true) })
}

// await makes a change of key and returns once it was told. Notices may come more than once; and a store that listens to
// several servers may call lost for one of them later.
func (n *notices) await(key string, change func() error) error {
	for len(n.lost) > 0 {
		<-n.lost
	}
	if err := change(); err != nil {
		return err
	}
	timeout := time.After(patience)
	for {
		select {
		case got := <-n.changed:
			if got == key {
				return nil
			}
		case <-n.lost:
			return nil
		case <-timeout:
			return fmt.Errorf("Watch did not tell of a change of %q", key)
		}
	}
}

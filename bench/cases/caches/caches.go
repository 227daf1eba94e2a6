// Package caches puts libraries through 15 behavioural cases, C01 to C15: what a cache in front of a loader has to do under a
// stampede, when writes race with loads, when the source fails and when callers give up.
package caches

import (
	"context"
	"errors"
	"time"

	"github.com/backstay-go/backstay/bench/cases"
)

// Suite returns the cases and the libraries.
func Suite() *cases.Suite {
	return cases.Definition[*subject]{
		Area:      "cache",
		Cases:     all(),
		Subjects:  []*subject{ours(), otterV2(), theineGo(), sturdyC(), lruSync(), ttlCache(), groupCache()},
		Deadline:  time.Minute, // a million loads under the race detector take most of it on a busy machine
		Earlier:   earlier,
		Explained: explained,
	}.Suite()
}

// loader is the source behind a cache. What it does not have it answers with errAbsent.
type loader func(ctx context.Context, key string) (any, error)

var (
	errBroken = errors.New("broken")
	errAbsent = errors.New("absent")
)

// spec is what a case asks of a cache.
type spec struct {
	load         loader
	capacity     int           // default: plenty
	ttl          time.Duration // default: a minute
	refreshAfter time.Duration // the age from which an entry that is read is loaded again in the background; 0: never
	staleFor     time.Duration // how long past its TTL an entry is served when the source fails
	absentFor    time.Duration // how long it is remembered that the source has nothing
}

func (s spec) withDefaults() spec {
	if s.capacity == 0 {
		s.capacity = 200_000
	}
	if s.ttl == 0 {
		s.ttl = time.Minute
	}
	return s
}

// opened is a cache reduced to what the cases need.
type opened struct {
	get    func(ctx context.Context, key string) (any, error)
	lookup func(ctx context.Context, key string) (v any, stale bool, err error) // of those that serve stale entries
	set    func(key string, v any)
	remove func(key string)
}

// read is get for callers who wait as long as it takes.
func (o opened) read(key string) (any, error) { return o.get(context.Background(), key) }

// feature is what a library may lack.
type feature string

const (
	contexts   feature = "contexts"
	writing    feature = "writing"
	refreshing feature = "refreshing"
	staleness  feature = "staleness"
	absence    feature = "absence"
	anyValues  feature = "any values"
)

// subject is a library under test.
type subject struct {
	cases.Subject
	open  func(spec) opened
	lacks map[feature]cases.Lack
}

const (
	noRefresh = cases.Lack("refreshes nothing in the background")
	noStale   = cases.Lack("serves no entry past its TTL")
	noAbsence = cases.Lack("does not remember what the source does not have")
)

func all() []cases.Case[*subject] {
	return []cases.Case[*subject]{
		{ID: "C01", Title: "1,000 callers of a missing key: one load", Run: with(stampede)},
		{ID: "C02", Title: "instant loads, 8 callers at each of 20,000 keys at once: no extra load", Plain: true, Run: with(instantLoads)},
		{ID: "C03", Title: "the first caller is cancelled: the others get the value", Run: with(firstCancelled, contexts)},
		{ID: "C04", Title: "a waiter's deadline of 20 ms is kept during a load of 300 ms", Run: with(waiterDeadline)},
		{ID: "C05", Title: "a loader panics: the waiters get an error, the next call works", Run: with(loaderPanics)},
		{ID: "C06", Title: "a delete during a load wins", Run: with(deleteDuringLoad, writing)},
		{ID: "C07", Title: "a set during a load wins", Run: with(setDuringLoad, writing)},
		{ID: "C08", Title: "a delete during a background refresh wins", Run: with(deleteDuringRefresh, writing, refreshing)},
		{ID: "C09", Title: "a set during a background refresh wins", Run: with(setDuringRefresh, writing, refreshing)},
		{ID: "C10", Title: "a refresh that fails is tried at most 5 times in 250 ms", Run: with(failingRefresh, refreshing)},
		{ID: "C11", Title: "a slow load delays no hit and no load of another key", Run: with(slowLoad)},
		{ID: "C12", Title: "zero and nil values are cached", Run: with(zeroValues, anyValues)},
		{ID: "C13", Title: "the source fails: an entry past its TTL is served, marked, and not for ever", Run: with(staleIfError, staleness)},
		{ID: "C14", Title: "what the source does not have is asked for once, and again later", Run: with(negative, absence)},
		{ID: "C15", Title: "memory stays bounded under a million keys that are read once", Plain: true, Run: with(boundedMemory)},
	}
}

// with puts a case to subjects that have the features which it needs.
func with(run func(open func(spec) opened) error, needs ...feature) func(*subject) error {
	return func(s *subject) error {
		for _, f := range needs {
			if lack, ok := s.lacks[f]; ok {
				return lack
			}
		}
		return run(func(sp spec) opened { return s.open(sp.withDefaults()) })
	}
}

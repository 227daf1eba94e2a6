// Package bench holds the benchmarks of backstay as data, so that the same cases run under "go test -bench" and in the report
// command. Every case has a floor, the bare work without any policy, and where one exists peers that do the same work. The folder
// cases beside it compares behaviour in the same manner.
package bench

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// Case is one subject doing one piece of work.
type Case struct {
	Area    string // what the report groups by
	Name    string // the work
	Subject string // who does it: "floor", "backstay" or a peer with its version
	Run     func(b *testing.B)
	Needs   func() error // says why the case cannot run here; nil: it always can
}

// The areas.
const (
	Resilience = "resilience" // the control packages
	Cache      = "cache"
	PubSub     = "pubsub"
	Outbox     = "outbox"
	Saga       = "saga"
)

// Floor is the subject that every other is compared with.
const Floor = "floor"

// Ours is how the name of each subject of this library begins.
const Ours = ours

// Headlines are the pieces of work that a short table shows.
func Headlines() []string {
	return []string{
		closedCase, openCase, freeCase, firstCase, thirdCase, allowedCase, fourCase, oneTimeCase,
		hitCase, missCase, stampedeCase, redisCase,
		fanOutCase, asyncPublishCase + ", TCP", consumeCase + ", TCP", "Redis Streams, consume and acknowledge",
		storeOneCase, drainCase, wakeTailCase, liteDrainCase,
		sagaMemoryCase, sagaServerCase, sagaServerCase + ", 16 clients", sagaLiteCase,
	}
}

// Cases returns all cases, the floor of each piece of work first. Call Close when all have run.
func Cases() []Case { return slices.Concat(resilience(), caching(), messaging(), outboxes(), sagas()) }

const (
	ours          = "backstay"
	failsafeName  = "failsafe-go 0.9.8"
	gobreakerName = "gobreaker 2.4.0"
	backoffName   = "backoff 4.3.0"
	avastName     = "avast/retry-go 5.1.1"
	sethvargoName = "sethvargo/go-retry 0.5.0"
	semaphoreName = "x/sync semaphore 0.24.0"
	rateName      = "x/time rate 0.16.0"
	contextName   = "context.WithTimeout"
)

func resilience() []Case {
	l := list{area: Resilience}
	primitives(&l)
	breakers(&l)
	retries(&l)
	bulkheads(&l)
	rates(&l)
	pipelines(&l)
	combinators(&l)
	clients(&l)
	return l.cases
}

// call is what all subjects come down to.
type call = func(ctx context.Context, n int) (int, error)

// subject is who does a piece of work. It is made anew for each case, so that none inherits the state of another.
type subject struct {
	name   string
	create func() call
}

// list collects cases.
type list struct {
	area  string
	cases []Case
}

const inParallel = ", parallel"

// add puts down a piece of work for one goroutine.
func (l *list) add(name string, floor call, subjects ...subject) {
	l.put(name, floor, subjects, serial)
}

// both puts it down for one goroutine and for as many as there are cores.
func (l *list) both(name string, floor call, subjects ...subject) {
	l.put(name, floor, subjects, serial)
	l.put(name+inParallel, floor, subjects, parallel)
}

func (l *list) put(name string, floor call, subjects []subject, loop func(call) func(*testing.B)) {
	l.append(name, Floor, loop(floor))
	for _, s := range subjects {
		l.append(name, s.name, loop(s.create()))
	}
}

func (l *list) append(name, subject string, run func(*testing.B)) {
	l.cases = append(l.cases, Case{Area: l.area, Name: name, Subject: subject, Run: run})
}

var errBroken = errors.New("broken")

// work is what most subjects wrap: too little to hide any cost.
func work(_ context.Context, n int) (int, error) { return n + 1, nil }

// half fails every second time.
func half(_ context.Context, n int) (int, error) {
	if n&1 == 1 {
		return 0, errBroken
	}
	return n + 1, nil
}

func serial(fn call) func(*testing.B) {
	return func(b *testing.B) {
		ctx := context.Background()
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			_, _ = fn(ctx, n)
			n++
		}
	}
}

func parallel(fn call) func(*testing.B) {
	return func(b *testing.B) {
		ctx := context.Background()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			n := 0
			for pb.Next() {
				_, _ = fn(ctx, n)
				n++
			}
		})
	}
}

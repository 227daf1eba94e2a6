package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// roleFlag, as the first argument, makes this program one process of a shop that another one has started.
const roleFlag = "-role"

// A posting is all that such a process is told: one line of JSON on its standard input, which stays open as long as the
// process that started it lives.
type posting struct {
	Role   string `json:"role"`   // gateway, a service, or broker
	Name   string `json:"name"`   // role/number
	Listen string `json:"listen"` // host:port

	Data     string              `json:"data"`
	Seed     uint64              `json:"seed"`
	Chaos    bool                `json:"chaos"`
	Broker   string              `json:"broker"`
	Prefix   string              `json:"prefix"` // of what is the shop's at the broker
	Replicas int                 `json:"replicas"`
	DB       string              `json:"db"`
	Base     map[string][]string `json:"base"` // URLs of the instances by service

	Node *node `json:"node,omitempty"` // of a broker that is one of several
}

// A word is what a process says on its standard output, one line of JSON each: that it is open, and from then on what it has
// counted since it began.
type word struct {
	Open   bool   `json:"open"`
	Counts result `json:"counts"`
}

const (
	countEvery  = 250 * time.Millisecond
	openingTime = time.Minute
)

// beProcess is the life of such a process. It ends in order when its input does, with the process that started it, or on
// SIGTERM; an interrupt from the terminal is for that other process to deal with.
func beProcess(in io.Reader, out, stderr io.Writer) int {
	signal.Ignore(os.Interrupt)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	lines := bufio.NewReader(in)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		say(stderr, "shop %s: nobody says what to do: it is for the processes that -processes starts", roleFlag)
		return 2
	}
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		stop()
	}()
	var p posting
	if err := json.Unmarshal(line, &p); err != nil {
		say(stderr, "shop %s: %v", roleFlag, err)
		return 2
	}
	if err := p.carryOut(ctx, json.NewEncoder(out)); err != nil {
		say(stderr, "%v", err)
		return 1
	}
	return 0
}

// carryOut opens what the posting asks for, and closes it when ctx is done.
func (p *posting) carryOut(ctx context.Context, out *json.Encoder) (err error) {
	s := newShop(settings{data: p.Data, seed: p.Seed, chaos: p.Chaos, broker: p.Broker, events: p.Prefix, replicas: p.Replicas, db: p.DB, addr: p.Listen})
	s.post, s.base = p, p.Base
	defer func() { err = errors.Join(err, s.close()) }()
	opening, cancel := context.WithTimeout(ctx, openingTime)
	defer cancel()
	if err := s.open(opening, s.duties()...); err != nil {
		if ctx.Err() != nil {
			return nil // it is not wanted any more
		}
		return err
	}
	if err := s.report(ctx, out); err != nil {
		return nil // nobody listens: the process that started this one has died
	}
	if s.alive.Err() != nil {
		return context.Cause(s.alive)
	}
	if err := s.close(); err != nil {
		return err
	}
	_ = out.Encode(word{Open: true, Counts: s.counted()}) // as above
	return nil
}

func (s *shop) duties() []func(context.Context) error {
	switch s.post.Role {
	case brokerRole:
		return []func(context.Context) error{s.startNode}
	case gatewayRole:
		return []func(context.Context) error{s.startServices, s.startMoving, s.startGateway}
	default:
		return []func(context.Context) error{s.openDatabases, s.openStores, s.prepare, s.startServices, s.startMoving, s.connect}
	}
}

// report says what is counted until ctx is done or the shop has broken down.
func (s *shop) report(ctx context.Context, out *json.Encoder) error {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		if err := out.Encode(word{Open: true, Counts: s.counted()}); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		case <-s.alive.Done():
			return nil
		}
	}
}

func (s *shop) counted() (r result) {
	s.count(&r)
	return r
}

// add adds what another process has counted.
func (r *result) add(o result) {
	for _, sum := range []struct {
		into *int
		n    int
	}{
		{&r.EventsPublished, o.EventsPublished}, {&r.EventsHandled, o.EventsHandled}, {&r.DuplicatesSuppressed, o.DuplicatesSuppressed},
		{&r.DeadLetters, o.DeadLetters}, {&r.Retries, o.Retries}, {&r.BreakerOpened, o.BreakerOpened}, {&r.Fallbacks, o.Fallbacks},
		{&r.Redeliveries, o.Redeliveries}, {&r.Compensations, o.Compensations}, {&r.CatalogueHits, o.CatalogueHits},
		{&r.CatalogueLoads, o.CatalogueLoads}, {&r.CatalogueRefreshes, o.CatalogueRefreshes},
		{&r.CatalogueStaleServed, o.CatalogueStaleServed}, {&r.CatalogueNegativeHits, o.CatalogueNegativeHits},
	} {
		*sum.into += sum.n
	}
}

// shortly is the last line of what a process has said before its end.
func shortly(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

var errNeverOpen = errors.New("it does not open")

// asProcess is the command line of a process, by which a person who looks at the list of processes knows it.
func (p *posting) asProcess() []string { return []string{roleFlag, p.Name, "-data", p.Data} }

func (p *posting) line() ([]byte, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	return append(text, '\n'), nil
}

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/backstay-go/backstay/saga"
)

const (
	patience      = 60 * time.Second // with what is under way and does not move
	lastPatience  = 20 * time.Second // after an interrupt
	settlingCheck = 50 * time.Millisecond
)

// run is the command. It returns the exit status: 0 when every invariant holds, 1 when not, 2 when the caller can mend it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		say(stderr, "shop: %v\nshop -help tells what there is.", err)
		return 2
	}
	ok, err := trade(ctx, cfg, stdout, stderr)
	if err != nil {
		say(stderr, "shop: %v", err)
		if _, usage := errors.AsType[usageError](err); usage {
			return 2
		}
		return 1
	}
	if !ok {
		return 1
	}
	return 0
}

// trade opens the shop, serves the customers, closes it, and says whether every invariant holds.
func trade(ctx context.Context, cfg settings, stdout, stderr io.Writer) (ok bool, err error) {
	goods, source, err := load(cfg)
	if err != nil {
		return false, err
	}
	cfg.temporary = cfg.data == ""
	if cfg.data, err = dataFolder(cfg.data); err != nil {
		return false, err
	}
	told := details{Source: source, Skipped: goods.Skipped, Refused: goods.Refused}
	r, err := serveAll(ctx, cfg, goods, &told, stderr)
	if cfg.temporary && (r.OK || isUsage(err)) {
		err = errors.Join(err, os.RemoveAll(cfg.data))
	} else {
		told.Notes = append(told.Notes, "The data is kept in "+cfg.data+".")
	}
	if err != nil {
		return false, fmt.Errorf("%w (data folder: %s)", err, cfg.data)
	}
	if cfg.json {
		return r.OK, writeJSON(stdout, r)
	}
	return r.OK, writeReport(stdout, r, told)
}

func isUsage(err error) bool {
	_, ok := errors.AsType[usageError](err)
	return ok
}

func dataFolder(dir string) (string, error) {
	if dir == "" {
		return os.MkdirTemp("", "shop-")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", usageError{fmt.Errorf("-data: %w: give a folder that can be written", err)}
	}
	return dir, nil
}

// serveAll is the life of a shop, from opening to the proof.
func serveAll(ctx context.Context, cfg settings, goods assortment, told *details, stderr io.Writer) (r result, err error) {
	start := time.Now()
	s, err := openShop(ctx, cfg, goods.Products, stderr)
	if err != nil {
		return r, err
	}
	defer func() {
		err = errors.Join(err, s.close())
		if err == nil && r.OK {
			err = s.tidy(ctx)
		}
		if s.removeDatabases != nil && (!r.OK || !s.cfg.temporary) {
			told.Notes = append(told.Notes, "The orders are kept in "+s.place+".")
		}
	}()
	if err := s.attend(ctx, goods.Requests, told, stderr); err != nil {
		return r, err
	}
	if err := s.closeTo(s.databases); err != nil {
		return r, err
	}
	r, err = s.prove(ctx, told, start)
	if s.cfg.temporary && r.OK && s.removeEvents != nil {
		err = errors.Join(err, s.removeEvents(context.WithoutCancel(ctx)))
	}
	return r, err
}

// attend lets the customers in, and with -serve anybody else until the interrupt, and carries out what they asked for.
func (s *shop) attend(ctx context.Context, requests []request, told *details, stderr io.Writer) error {
	working, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(s.alive, stop)()
	say(stderr, "The shop keeps its data in %s and is open at %s .", s.place, s.public)
	if s.console != nil {
		say(stderr, "What its patterns are doing is at %s%s , live.", s.public, consolePath)
	}
	customers := newClient(s.dbs.client, s.public, s.cfg.rate)
	if s.fleet != nil {
		customers.wait(-1, firePatience)
	}
	endProgress := s.showProgress(stderr, customers, len(requests))
	err := customers.run(working, requests)
	endProgress()
	if err != nil {
		return err
	}
	if s.cfg.serve {
		<-working.Done()
	}
	if n := len(requests) - int(customers.answered.Load()); n > 0 {
		told.Notes = append(told.Notes, fmt.Sprintf("Interrupted with %s requests not placed.", grouped(n)))
	}
	defer s.showProgress(stderr, customers, len(requests))()
	return s.settle(ctx)
}

// showProgress tells how far the customers are until the function it returns is called.
func (s *shop) showProgress(stderr io.Writer, c *client, requests int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		showProgress(ctx, stderr, func() snapshot { return s.progress(ctx, c, requests) })
	}()
	return func() {
		cancel()
		<-done
	}
}

func (s *shop) progress(ctx context.Context, c *client, requests int) snapshot {
	now := snapshot{Phase: "placing orders", Orders: requests, Answered: int(c.answered.Load()), Accepted: int(c.accepted.Load())}
	if s.settling.Load() {
		now.Phase = "settling"
	}
	// A line without this number is better than no line.
	_ = s.dbs.orders.QueryRowContext(context.WithoutCancel(ctx), `SELECT count(*) FROM orders WHERE status <> 'pending'`).Scan(&now.Ended)
	return now
}

// settle waits until everything that was accepted is carried through: sagas, outboxes, events. It waits as long as something
// moves, and no longer than lastPatience after an interrupt.
func (s *shop) settle(ctx context.Context) error {
	s.settling.Store(true)
	if err := s.shut(); err != nil {
		return err
	}
	stuck := time.NewTimer(patience)
	defer stuck.Stop()
	var hurry <-chan time.Time
	interrupted := ctx.Done()
	tick := time.NewTicker(settlingCheck)
	defer tick.Stop()
	for before := -1; ; {
		n, err := s.underWay(s.alive)
		if s.alive.Err() != nil {
			return context.Cause(s.alive)
		}
		if n == 0 || err != nil {
			return err
		}
		if n != before {
			before = n
			stuck.Reset(patience)
		}
		select {
		case <-tick.C:
		case <-interrupted:
			interrupted, hurry = nil, time.After(lastPatience)
		case <-hurry:
			return nil // the proof will tell what is left
		case <-stuck.C:
			return nil // as above
		}
	}
}

// underWay counts what is not carried through yet. It looks in the order in which one thing leads to the next, so that
// what was seen to be done stays done.
func (s *shop) underWay(ctx context.Context) (n int, err error) {
	active, err := s.sagas.List(ctx, saga.Filter{Statuses: []saga.Status{saga.Running, saga.Compensating}, Limit: 1})
	if err != nil {
		return 0, err
	}
	var pending, ordered, shipped, all, viewed int
	if err := errors.Join(
		readCounts(ctx, s.dbs.orders, `SELECT (SELECT count(*) FROM orders WHERE status = 'pending') +
			(SELECT count(*) FROM cancellations WHERE status = 'pending')`, &pending),
		readCounts(ctx, s.dbs.shipping, `SELECT count(*) FROM applied`, &shipped),
		readCounts(ctx, s.dbs.orders, `SELECT count(*) FROM events`, &ordered),
	); err != nil {
		return 0, err
	}
	for _, db := range s.dbs.services() {
		var events int
		if err := readCounts(ctx, db, `SELECT count(*) FROM events`, &events); err != nil {
			return 0, err
		}
		all += events
	}
	if err := readCounts(ctx, s.dbs.views, `SELECT count(*) FROM applied`, &viewed); err != nil {
		return 0, err
	}
	n = len(active) + pending + max(0, ordered-shipped) + max(0, all-viewed)
	for name := range s.dbs.services() {
		backlog, err := s.stores[name].Backlog(ctx)
		if err != nil {
			return 0, err
		}
		n += int(backlog.Pending)
	}
	return n, nil
}

// prove reads what the run has left behind.
func (s *shop) prove(ctx context.Context, told *details, start time.Time) (result, error) {
	ctx = context.WithoutCancel(ctx)
	r, err := tally(ctx, s.dbs)
	if err != nil {
		return r, err
	}
	s.count(&r)
	told.Faults = s.bank.figures()
	if s.stocktaking != nil {
		told.Faults = append(told.Faults, figure{"look-ups refused: inventory is taking stock", s.stocktaking.refusals()})
	}
	if s.fleet != nil {
		told.Faults = append(told.Faults, s.fleet.figures()...)
	}
	if r.Invariants, err = check(ctx, s.dbs); err != nil {
		return r, err
	}
	r.OK = holdAll(r.Invariants)
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}

// count fills in what no database remembers: what this run took, in this process and in those that it has started.
func (s *shop) count(r *result) {
	if s.fleet != nil {
		r.add(s.fleet.counted())
	}
	for _, relay := range s.relays {
		r.EventsPublished += int(relay.Stats().Published)
	}
	for _, in := range s.inboxes {
		stats := in.Stats()
		r.EventsHandled += int(stats.Handled)
		r.DuplicatesSuppressed += int(stats.Duplicates)
	}
	s.mu.Lock()
	for _, c := range s.consumers {
		r.DeadLetters += int(c.Stats().DeadLettered)
	}
	s.mu.Unlock()
	r.Redeliveries += int(s.redelivered.Load())
	if s.teller != nil {
		r.Retries += int(s.teller.retry.Stats().Retries)
		r.BreakerOpened += int(s.teller.breaker.Stats().Opened)
		r.Fallbacks += int(s.teller.fallback.Stats().Used)
	}
	if s.runner != nil {
		r.Compensations += int(s.runner.Stats().Compensated)
	}
	if s.gateway == nil {
		return
	}
	for _, retries := range s.gateway.retries {
		r.Retries += int(retries.Stats().Retries)
	}
	seen := s.catalogue.Stats()
	r.CatalogueHits += int(seen.Hits)
	r.CatalogueLoads += int(seen.Loads)
	r.CatalogueRefreshes += int(seen.Refreshes)
	r.CatalogueStaleServed += int(seen.StaleServed)
	r.CatalogueNegativeHits += int(seen.NegativeHits)
}

func (b *bank) figures() []figure {
	stats := b.stats()
	return []figure{
		{"requests served", stats.served},
		{"served slowly", stats.slow},
		{"answered 503", stats.unavailable},
		{"connections reset", stats.resets},
		{"cards declined", stats.declined},
		{"outages", stats.outages},
	}
}

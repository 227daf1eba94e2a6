package outbox

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// pollMin is the shortest pause between looks at an empty store.
const pollMin = 5 * time.Millisecond

// worker is the state of one Run. One goroutine leases, fetches, publishes and settles in turn, so nothing here is shared; beside it, only the
// next batch is read while one is settled, and the backlog is counted.
type worker struct {
	*Relay
	leases  Leases
	renewed time.Time     // just before the renewal in force was asked for
	counted time.Time     // when the backlog was last asked for, or when the relay began
	idled   bool          // there was once nothing to do
	pause   time.Duration // until the next look, while there is nothing to do
	penalty time.Duration // until the next try, while store or publisher fail; only a success makes it short again
	// width bounds one call of the publisher. It shrinks while calls fail as a whole, so that one message which makes the
	// publisher refuse all of them ends up alone, and grows again with success.
	width int
	// proven is true while the last call of the publisher took something. Only then does a failure speak against the message
	// rather than against the publisher: an outage parks nothing, however long it lasts.
	proven bool
	ahead  *ahead // read while the last batch was settled, or nil
	// counting has the outcome of reading the backlog, which goes on beside the rounds; nil while it does not.
	counting chan error
}

// result is what a round tells about the next one.
type result int

const (
	more    result = iota // there is more to do at once
	idle                  // nothing to do until woken or the pause is over
	trouble               // store or publisher failed: a wake must not cut the pause short
)

// round renews the leases, then fetches, publishes and settles one batch.
func (w *worker) round(ctx context.Context) result {
	cfg := w.Config()
	if err := w.tend(ctx, cfg); err != nil {
		if ctx.Err() == nil {
			w.fail("lease", err)
		}
		return trouble
	}
	if w.leases.Count() == 0 {
		return idle
	}
	records, err := w.fetch(ctx, cfg)
	if err != nil {
		if ctx.Err() == nil {
			w.fail("fetch", err)
		}
		return trouble
	}
	published, failed := w.publish(ctx, cfg, records)
	next := w.prefetch(ctx, cfg, records, published)
	settled := w.settle(ctx, cfg, published, failed)
	w.ahead = next.wait(settled)
	if !settled {
		return trouble // the batch will be published once more: not in a hot loop
	}
	if len(published) > 0 {
		w.pause, w.penalty = pollMin, pollMin
	}
	switch {
	case len(published) == 0 && len(records) > 0:
		return trouble
	case len(records) == cfg.Batch:
		return more
	default:
		return idle
	}
}

// rest waits as the round's result asks for.
func (w *worker) rest(ctx context.Context, r result) {
	longest := w.Config().PollMax
	switch r {
	case idle:
		if !w.idled {
			w.idled, w.counted = true, time.Time{} // the first count, which makes way for a backlog, need not wait any longer
		}
		woken := sleep(ctx, w.untilRenewal(w.pause), w.wake)
		w.pause = min(2*w.pause, longest)
		if woken {
			w.pause = pollMin
		}
	case trouble:
		w.endure(ctx, w.penalty)
		w.penalty = min(2*w.penalty, longest)
	}
}

// endure waits for the whole pause and goes on renewing the leases meanwhile, without trying anything else.
func (w *worker) endure(ctx context.Context, pause time.Duration) {
	for end := time.Now().Add(pause); ; {
		left := time.Until(end)
		now := w.untilRenewal(left)
		sleep(ctx, now, nil)
		if now == left || ctx.Err() != nil {
			return
		}
		if err := w.tend(ctx, w.Config()); err != nil && ctx.Err() == nil {
			w.fail("lease", err)
		}
	}
}

// untilRenewal shortens a pause that would pass over a renewal, so that PollMax may be longer than Lease. A renewal that is overdue
// has failed, and is tried again a few times before the lease runs out; then there is no hurry.
func (w *worker) untilRenewal(pause time.Duration) time.Duration {
	cfg, age := w.Config(), time.Since(w.renewed)
	left := renewEvery(cfg, w.leases) - age
	switch {
	case age >= cfg.Lease:
		return pause
	case left <= 0:
		left = cfg.Lease / 6
	}
	return min(pause, left)
}

// tend renews the leases and gives up those above the share when that is due. It runs between batches only, so that what is
// given up is never in the publisher's hands.
func (w *worker) tend(parent context.Context, cfg RelayConfig) error {
	ctx, cancel := context.WithTimeout(parent, cfg.Lease)
	defer cancel()
	if err := w.renew(ctx, cfg); err != nil {
		return err
	}
	if extra := w.leases.surplus(); extra.Count() > 0 {
		if err := w.queue.Release(ctx, extra); err != nil {
			return err
		}
		w.hold(w.leases.without(extra))
	}
	return w.count(parent, cfg)
}

// count reads the backlog when that is due, beside the rounds that follow, since a long backlog takes long to count. It returns the
// error of the reading before.
func (w *worker) count(ctx context.Context, cfg RelayConfig) (err error) {
	if w.counting != nil {
		select {
		case err = <-w.counting:
			w.counting = nil
		default:
			return nil
		}
	}
	if time.Since(w.counted) < cfg.Lease/3 {
		return err
	}
	w.counted = time.Now()
	done := make(chan error, 1)
	w.counting = done
	go func() {
		ctx, cancel := context.WithTimeout(ctx, cfg.Lease)
		defer cancel()
		backlog, err := w.queue.Backlog(ctx)
		if err == nil {
			w.backlog.Store(&backlog)
		}
		done <- err
		close(done)
	}()
	return err
}

// renew extends the leases when a third of their length has passed. The length is measured from before the request, so that
// the relay stops believing in a lease no later than the store does.
func (w *worker) renew(ctx context.Context, cfg RelayConfig) error {
	if time.Since(w.renewed) < renewEvery(cfg, w.leases) {
		return nil
	}
	asked := time.Now()
	leases, err := w.queue.Lease(ctx, w.leases.Owner, cfg.Lease)
	if err != nil {
		if time.Since(w.renewed) >= cfg.Lease {
			w.hold(Leases{Owner: w.leases.Owner})
		}
		return err
	}
	w.renewed = asked
	w.hold(leases)
	return nil
}

func (w *worker) hold(l Leases) {
	w.leases = l
	w.buckets.Store(int64(l.Count()))
}

// publish hands the records to the publisher in waves: the first message of every lane, then the second of every lane whose
// first was taken, and so on. No message is tried before the one ahead of it in its lane has been taken, whatever the publisher
// does with the messages of one call.
func (w *worker) publish(ctx context.Context, cfg RelayConfig, records []Record) (published []Record, failed []Failure) {
	blocked := map[int64]bool{}
	for _, wave := range waves(records) {
		for len(wave) > 0 {
			if ctx.Err() != nil || time.Since(w.renewed)+cfg.PublishTimeout > cfg.Lease {
				return published, failed // stopping, or a call might outlive the leases: settle and renew first
			}
			var call []Record
			call, wave = take(wave, blocked, w.width)
			call, unreadable := readable(call)
			taken, refused := w.send(ctx, cfg, call)
			published = join(published, taken)
			failed = append(append(failed, unreadable...), refused...)
			for _, f := range failed {
				blocked[f.Record.Lane] = true
			}
			if len(published) == 0 && len(refused) > 0 {
				return published, failed // the publisher may be down: no use in offering it the rest
			}
		}
	}
	return published, failed
}

// join is append that copies nothing where one call took all.
func join(all, more []Record) []Record {
	if len(all) == 0 {
		return slices.Clip(more)
	}
	return append(all, more...)
}

// waves groups records, which are in order, by their place within their lane. Where every lane has one, they are not copied.
func waves(records []Record) [][]Record {
	depth := make(map[int64]int, len(records))
	for _, r := range records {
		depth[r.Lane]++
	}
	if len(depth) == len(records) {
		return [][]Record{records}
	}
	clear(depth)
	var out [][]Record
	for _, r := range records {
		d := depth[r.Lane]
		depth[r.Lane]++
		if d == len(out) {
			out = append(out, nil)
		}
		out[d] = append(out[d], r)
	}
	return out
}

// take splits off at most n records for the next call, leaving out lanes that are blocked.
func take(wave []Record, blocked map[int64]bool, n int) (call, rest []Record) {
	if len(blocked) == 0 {
		n = min(n, len(wave))
		return wave[:n], wave[n:]
	}
	for i, r := range wave {
		if len(call) == n {
			return call, wave[i:]
		}
		if !blocked[r.Lane] {
			call = append(call, r)
		}
	}
	return call, nil
}

// readable takes out of a call what the store could not read. That is parked at once: no publisher is to blame, and trying again helps nobody.
func readable(call []Record) (rest []Record, parked []Failure) {
	if !slices.ContainsFunc(call, func(r Record) bool { return r.Fault != nil }) {
		return call, nil
	}
	for _, r := range call {
		if r.Fault == nil {
			rest = append(rest, r)
		} else {
			parked = append(parked, Failure{Record: r, Err: r.Fault, Parked: true})
		}
	}
	return rest, parked
}

// send makes one call of the publisher. It is not cut short by ctx: what is in the publisher's hands at shutdown is finished.
func (w *worker) send(ctx context.Context, cfg RelayConfig, call []Record) (taken []Record, refused []Failure) {
	if len(call) == 0 {
		return nil, nil
	}
	msgs := make([]pubsub.Message, len(call))
	for i, r := range call {
		msgs[i] = r.Message
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.PublishTimeout)
	defer cancel()
	errs := verdicts(w.publisher.Publish(ctx, msgs...), len(call))
	taken = accepted(call, errs)
	w.published.Add(uint64(len(taken)))
	// A bus that finds one message invalid sends none of the call: then the errors do not tell who is to blame.
	whole := len(taken) == 0 && len(call) > 1
	w.proven = w.proven || len(taken) > 0
	for i, r := range call {
		if errs[i] != nil {
			refused = append(refused, w.judge(cfg, r, errs[i], w.proven && !whole))
		}
	}
	w.proven = len(taken) > 0
	w.adapt(cfg, len(call), whole, len(taken) > 0)
	return taken, refused
}

// accepted are the records of a call that the publisher took.
func accepted(call []Record, errs []error) []Record {
	if !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		return call
	}
	var taken []Record
	for i, r := range call {
		if errs[i] == nil {
			taken = append(taken, r)
		}
	}
	return taken
}

// verdicts spreads the publisher's error over n messages.
func verdicts(err error, n int) []error {
	errs := make([]error, n)
	if err == nil {
		return errs
	}
	var partial *pubsub.PublishError
	if !errors.As(err, &partial) || !fits(partial, n) {
		return slices.Repeat([]error{err}, n)
	}
	for _, f := range partial.Failed {
		errs[f.Index] = cmp.Or(f.Err, err)
	}
	return errs
}

// fits reports whether e speaks of a call with n messages.
func fits(e *pubsub.PublishError, n int) bool {
	for _, f := range e.Failed {
		if f.Index < 0 || f.Index >= n {
			return false
		}
	}
	return len(e.Failed) > 0
}

// judge decides what becomes of a message that was not taken. Where the failure does not speak against the message, it is
// tried again soon, but after the next round, which belongs to those that were not tried in this one.
func (w *worker) judge(cfg RelayConfig, r Record, err error, against bool) Failure {
	if !against {
		return Failure{Record: r, Err: err, Delay: 2 * w.penalty}
	}
	r.Attempts++
	permanent, ok := err.(interface{ Permanent() bool })
	return Failure{
		Record: r,
		Err:    err,
		Parked: ok && permanent.Permanent() || cfg.MaxAttempts > 0 && r.Attempts >= cfg.MaxAttempts,
		Delay:  backoff(cfg, r.Attempts),
	}
}

// backoff doubles with each attempt, spread over its upper half so that keys which failed together part.
func backoff(cfg RelayConfig, attempts int) time.Duration {
	d := cfg.BackoffInitial
	for range min(attempts-1, 62) {
		if d >= cfg.BackoffMax/2 {
			d = cfg.BackoffMax
			break
		}
		d *= 2
	}
	return d - rand.N(d/2+1)
}

// adapt narrows or widens the next call.
func (w *worker) adapt(cfg RelayConfig, n int, whole, some bool) {
	switch {
	case whole:
		w.width = max(1, n/8)
	case some:
		w.width = min(2*w.width, cfg.Batch)
	}
}

// settle records the outcome, trying again for the length of a lease: forgetting it would publish the batch a second time. It reports
// whether all of it was recorded.
func (w *worker) settle(ctx context.Context, cfg RelayConfig, published []Record, failed []Failure) bool {
	if len(published)+len(failed) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Lease)
	defer cancel()
	for pause := pollMin; ; pause = min(2*pause, cfg.PollMax) {
		err := w.queue.Settle(ctx, w.leases, published, failed)
		if err == nil {
			w.report(failed)
			return true
		}
		w.fail("settle", err)
		if errors.Is(err, ErrFenced) {
			w.fenced.Add(1)
			w.giveUp(ctx)
			return false
		}
		if ctx.Err() != nil {
			return false
		}
		sleep(ctx, pause, nil)
	}
}

// giveUp releases all leases after one was lost. Those still held are free for others meanwhile, should it be this relay that is at fault.
func (w *worker) giveUp(ctx context.Context) {
	if err := w.queue.Release(ctx, w.leases); err != nil {
		w.fail("release", err)
	}
	w.hold(Leases{Owner: w.leases.Owner})
	w.renewed = time.Time{}
}

// report counts failures and tells the hook once they are recorded.
func (w *worker) report(failed []Failure) {
	for _, f := range failed {
		w.failed.Add(1)
		if f.Parked {
			w.parked.Add(1)
		}
		w.onFailure(f)
	}
}

// leave gives the leases back, so that other relays need not wait for them to run out.
func (w *worker) leave(ctx context.Context) {
	cfg := w.Config()
	if w.counting != nil {
		for range w.counting { // its outcome is of no use any more; it ends with ctx
			continue
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Lease)
	defer cancel()
	if err := w.queue.Release(ctx, w.leases); err != nil {
		w.fail("release", err)
	}
	w.hold(Leases{})
}

// sleep waits for d, for a wake, or for the end of ctx, and tells whether it was woken.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false
	case <-ctx.Done():
		return false
	case <-wake:
		return true
	}
}

package natspubsub

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// pullExpires is how long the server keeps a request; one that is lost on the way is repeated soon after. It is
	// shorter for a short lease, see receiver.expires.
	pullExpires = 5 * time.Second
	pullLeast   = 500 * time.Millisecond
	// clockEvery is how many messages share a reading of the clock.
	clockEvery = 16

	backoffFirst = 50 * time.Millisecond
	backoffMax   = 5 * time.Second
)

// session is the time during which a receiver wants messages: an inbox, pull requests to the consumer, and what has
// arrived. What arrives after its end is given back at once, so that no lease has to run out.
type session struct {
	receiver *receiver
	inbox    string
	sub      *nats.Subscription
	wake     chan struct{} // holds one signal
	ended    chan struct{} // closed when nothing can arrive any more

	mu         sync.Mutex
	over       bool
	arrived    []arrival
	first      int           // of those in arrived that are not taken
	clock      time.Duration // when one of the last arrived
	keeper     *time.Timer   // extends the leases of what has arrived
	pull       pull
	pace       pace
	reconnects uint64
}

// arrival is a message that waits to be taken.
type arrival struct {
	msg *nats.Msg
	at  time.Duration // since the receiver was started
}

// waiting is what has arrived and is not taken.
func (s *session) waiting() []arrival { return s.arrived[s.first:] }

// pull is the requests to one consumer.
type pull struct {
	number   uint64    // of the last request, the last part of its reply subject
	first    uint64    // of the requests that count; those before are forgotten
	left     int       // messages that they may still bring
	deadline time.Time // when the last one counts as lost, and with it all
	failures int       // in a row
	retryAt  time.Time
	refusal  error // a permanent answer of the server
	suspect  bool  // the consumer may be gone
}

// newSession subscribes to a new inbox. It is called with the receiver's mutex held; nothing in it waits.
func newSession(r *receiver) (*session, error) {
	s := &session{
		receiver:   r,
		inbox:      r.driver.conn.NewInbox(),
		wake:       make(chan struct{}, 1),
		ended:      make(chan struct{}),
		reconnects: r.driver.conn.Stats().Reconnects,
	}
	var err error
	if s.sub, err = r.driver.conn.Subscribe(s.inbox+".*", s.onMessage); err != nil {
		return nil, err
	}
	s.sub.SetClosedHandler(func(string) {
		s.giveBack()
		close(s.ended)
	})
	r.sessions = append(slices.DeleteFunc(r.sessions, (*session).hasEnded), s)
	return s, nil
}

// onMessage runs on the subscription's goroutine.
func (s *session) onMessage(m *nats.Msg) {
	if strings.HasPrefix(m.Reply, "$JS.ACK.") {
		s.onDelivery(m)
		return
	}
	number, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, s.inbox+"."), 10, 64)
	if err != nil {
		return
	}
	s.mu.Lock()
	if p := &s.pull; number >= p.first {
		p.answer(m.Header.Get("Status"), m.Header.Get("Description"), m.Header.Get("Nats-Pending-Messages"))
	}
	s.mu.Unlock()
	s.signal()
}

// onDelivery keeps the message for Receive. Its subject is the one that it was published to.
func (s *session) onDelivery(m *nats.Msg) {
	drop := strings.HasPrefix(m.Subject, s.receiver.delayed)
	s.mu.Lock()
	if !drop {
		s.keepArrival(m)
	}
	p := &s.pull
	p.left = max(p.left-1, 0)
	p.failures = 0
	s.mu.Unlock()
	s.signal()
	if drop { // it comes again as a message when its time has come
		_ = s.receiver.driver.conn.Publish(m.Reply, ackDone)
	}
}

// keepArrival is called with the mutex held. The time is that of one of the last messages: reading the clock costs more
// than the rest, and too early a time only has a lease extended too early.
func (s *session) keepArrival(m *nats.Msg) {
	if len(s.arrived)%clockEvery == 0 {
		s.clock = time.Since(s.receiver.started)
	}
	if s.first > 0 && len(s.arrived) == cap(s.arrived) { // there is room at the beginning
		n := copy(s.arrived, s.waiting())
		clear(s.arrived[n:])
		s.arrived, s.first = s.arrived[:n], 0
	}
	s.arrived = append(s.arrived, arrival{msg: m, at: s.clock})
	if len(s.waiting()) == 1 && !s.over {
		s.keep()
	}
}

// answer is the end of a request, for the reason in status and description; pending is what it had left, if the server
// says so.
func (p *pull) answer(status, description, pending string) {
	text := strings.ToLower(description)
	switch {
	case status == "100": // an idle heartbeat
	case status == "404" || status == "408": // nothing there; time is up
		p.failures = 0
		if n, err := strconv.Atoi(pending); err == nil {
			p.left = max(p.left-n, 0)
			return
		}
		p.forget()
	case status == "400", strings.Contains(text, "exceeded maxrequest"), strings.Contains(text, "push based"):
		p.forget()
		p.refusal = fmt.Errorf("the server refuses to deliver: %s %s", status, description)
	default: // leadership change, server shutdown, consumer deleted, no responders, too many waiting …
		p.fail(time.Now())
	}
}

// forget expects nothing more of the requests so far.
func (p *pull) forget() { p.left, p.first = 0, p.number+1 }

// fail makes a request due again after a while, when the consumer has been looked for.
func (p *pull) fail(now time.Time) {
	p.forget()
	p.failures++
	p.suspect = true
	p.retryAt = now.Add(backoff(p.failures))
}

// backoff doubles from backoffFirst to backoffMax, of which up to a half is random.
func backoff(failures int) time.Duration {
	d := min(backoffFirst<<min(failures-1, 10), backoffMax)
	return d/2 + rand.N(d/2+1)
}

// pace is how fast the owner takes messages, and what is therefore fetched ahead: as much as it takes in aheadTime, and
// nothing below aheadLeast. So a slow handler holds back nothing that others could have, and a fast one does not wait.
type pace struct {
	ahead int
	count int           // taken
	since time.Duration // begin of the count
}

const (
	aheadTime  = 20 * time.Millisecond
	aheadLeast = 64
	aheadMost  = 1024
)

// taken counts n messages taken now and returns what to fetch ahead.
func (p *pace) taken(n int, now time.Duration) int {
	p.count += n
	elapsed := now - p.since
	if elapsed < aheadTime/4 || p.count < aheadLeast && elapsed < aheadTime {
		return p.ahead
	}
	p.ahead = int(min(int64(p.count)*int64(aheadTime)/int64(elapsed), aheadMost))
	if p.ahead < aheadLeast {
		p.ahead = 0
	}
	p.count, p.since = 0, now
	return p.ahead
}

func (s *session) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take moves the first messages that have arrived to the end of taken. It reports hungry when requests should be sent
// although there are messages, lest the next ones be late.
func (s *session) take(taken []arrival, limit int) (_ []arrival, hungry bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return taken, false
	}
	n := min(limit, len(s.waiting()))
	next := s.waiting()[:n]
	taken = append(taken, next...)
	clear(next)
	s.first += n
	left := len(s.waiting())
	if left == 0 {
		s.arrived, s.first = s.arrived[:0], 0
		s.stopKeeping()
	}
	ahead := s.pace.taken(n, time.Since(s.receiver.started))
	return taken, ahead > 0 && n > 0 && s.pull.left+left <= ahead/2
}

// ask sends the requests that are due. It fails when a consumer is gone.
func (s *session) ask(ctx context.Context, limit int) error {
	if !s.receiver.driver.conn.IsConnected() {
		return nil // a request that waits in the client would come on top of the one after the reconnect
	}
	if err := s.receiver.acks.repeat(); err != nil {
		return err
	}
	q, suspect, err := s.due(limit)
	if err != nil {
		return err
	}
	if suspect {
		if err := s.receiver.verify(ctx); err != nil {
			return err
		}
	}
	if q.batch > 0 {
		return s.request(q)
	}
	return nil
}

// query is a request to send, if it has a batch.
type query struct {
	batch  int
	number uint64
}

func (s *session) due(limit int) (q query, suspect bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.pull
	if n := s.receiver.driver.conn.Stats().Reconnects; n != s.reconnects {
		s.reconnects = n
		p.forget() // as the server has
	}
	wanted, waiting := max(limit, s.pace.ahead), len(s.waiting())
	now := time.Now()
	if p.refusal != nil {
		return q, false, fmt.Errorf("natspubsub %q: consumer %s: %w", s.receiver.driver.cfg.Name, s.receiver.consumer, p.refusal)
	}
	if p.left > 0 && now.After(p.deadline) { // the server has not even said that time is up
		p.fail(now)
	}
	if p.left+waiting > wanted/2 || now.Before(p.retryAt) {
		return q, false, nil
	}
	suspect, p.suspect = p.suspect, false
	return p.next(wanted-p.left-waiting, s.receiver.expires), suspect, nil
}

// next is a request for so many messages.
func (p *pull) next(batch int, expires time.Duration) query {
	p.number++
	p.left += batch
	p.deadline = time.Now().Add(expires + time.Second)
	return query{batch, p.number}
}

// nextDue is how long Receive may wait before it must look at the requests again.
func (s *session) nextDue() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait, now := s.receiver.expires, time.Now()
	at := s.pull.retryAt
	if s.pull.left > 0 {
		at = s.pull.deadline
	}
	return max(min(wait, at.Sub(now)), time.Millisecond)
}

func (s *session) request(q query) error {
	r := s.receiver
	body := fmt.Appendf(nil, `{"batch":%d,"expires":%d}`, q.batch, int64(r.expires))
	api := "$JS.API.CONSUMER.MSG.NEXT." + r.stream + "." + r.consumer
	if err := r.driver.conn.PublishRequest(api, fmt.Sprintf("%s.%d", s.inbox, q.number), body); err != nil {
		return fmt.Errorf("natspubsub %q: topic %s: %w", r.driver.cfg.Name, r.topic, err)
	}
	return nil
}

// keep arms the timer that extends leases. It is called with the mutex held.
func (s *session) keep() {
	if s.keeper == nil {
		s.keeper = time.AfterFunc(s.receiver.lease/3, s.extend)
		return
	}
	s.keeper.Reset(s.receiver.lease / 3)
}

func (s *session) stopKeeping() {
	if s.keeper != nil {
		s.keeper.Stop()
	}
}

// extend makes the leases of what has arrived begin anew: handlers may be busy for longer than a lease. But an owner that
// has neither received nor settled for a lease, not even to extend what it holds, is gone: others wait for these.
func (s *session) extend() {
	if time.Since(s.receiver.started)-time.Duration(s.receiver.lastSeen.Load()) > s.receiver.lease {
		s.receiver.leave(s)
		return
	}
	s.mu.Lock()
	waiting := make([]string, len(s.waiting()))
	for i, a := range s.waiting() {
		waiting[i] = a.msg.Reply
	}
	if len(waiting) > 0 {
		s.keep()
	}
	s.mu.Unlock()
	for _, reply := range waiting {
		if s.receiver.driver.conn.Publish(reply, ackProgress) != nil {
			return // closed
		}
	}
}

// end stops asking. What has arrived, and what the server sends before it learns, is given back when ended is closed.
func (s *session) end() {
	s.mu.Lock()
	s.over = true
	s.stopKeeping()
	s.mu.Unlock()
	_ = s.sub.Drain() // fails when the connection is closed: then nothing can be given back either
}

// giveBack runs when nothing can arrive any more. Server 2.9 forgets a Nack, until the lease is over, when it finds a
// request that nobody waits for any more; it looks for those when it is asked about the consumer.
func (s *session) giveBack() {
	s.mu.Lock()
	s.over = true // also if the connection was closed
	back := s.waiting()
	s.arrived, s.first = nil, 0
	s.mu.Unlock()
	if len(back) == 0 {
		return
	}
	s.receiver.clearRequests()
	for _, a := range back {
		_ = s.receiver.driver.conn.Publish(a.msg.Reply, ackBack) // else its lease runs out
	}
}

func (s *session) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// awaitEnd waits until nothing can arrive any more, or ctx ends.
func (s *session) awaitEnd(ctx context.Context) {
	select {
	case <-s.ended:
	case <-ctx.Done():
	}
}

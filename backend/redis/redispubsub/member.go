package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/backstay-go/backstay/pubsub"
)

const (
	// closeTimeout bounds what Close asks of the server.
	closeTimeout = 5 * time.Second
	// blockFor is how long the server holds a read that finds nothing.
	blockFor = 2 * time.Second
	// blockSlack is how much later its answer may come before the connection is given up.
	blockSlack = 5 * time.Second
	// retryFirst and retryMost are the pauses after calls that failed.
	retryFirst = 20 * time.Millisecond
	retryMost  = time.Second
)

// member is what the receivers of both kinds have in common.
type member struct {
	driver    *Driver
	topic     *topic
	group     string
	name      string
	lease     time.Duration
	ordered   bool
	temporary bool

	ctx     context.Context // of calls in the background; ends when Close has given up or is done
	stop    context.CancelFunc
	running sync.WaitGroup // goroutines
	closing chan struct{}  // closed when Close begins
	arrived chan struct{}  // capacity 1: wakes Receive

	lastSeen  atomic.Int64 // when the owner last called Receive or Settle
	receiving atomic.Bool  // the owner is in Receive

	mu     sync.Mutex
	failed error         // beyond repair
	idle   time.Duration // after which a message may be taken over: the longest lease of the group
}

func newMember(d *Driver, t *topic, s pubsub.Subscription) *member {
	m := &member{
		driver: d, topic: t, group: s.Group, name: randomName(), lease: s.Lease, ordered: s.Ordered, temporary: s.Temporary,
		closing: make(chan struct{}), arrived: make(chan struct{}, 1), idle: s.Lease,
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.seen()
	return m
}

// seen notes a sign of life of the owner.
func (m *member) seen() { m.lastSeen.Store(int64(m.driver.now())) }

// abandoned reports whether the owner has not been heard of for a lease.
func (m *member) abandoned() bool {
	return !m.receiving.Load() && m.driver.now()-time.Duration(m.lastSeen.Load()) > m.lease
}

func (m *member) bell() string { return m.topic.bell(m.group, m.name) }

// announce wakes Receive.
func (m *member) announce() { kick(m.arrived) }

func kick(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// wrap says where an error comes from.
func (m *member) wrap(err error) error {
	if isGone(err) {
		err = fmt.Errorf("%w: %w", ErrGroupGone, err)
	}
	return fmt.Errorf("redispubsub %q: group %s of topic %s: %w", m.driver.cfg.Name, m.group, m.topic.name, err)
}

// fail ends the receiver with an error that Receive returns.
func (m *member) fail(err error) {
	m.mu.Lock()
	if m.failed == nil {
		m.failed = m.wrap(err)
	}
	m.mu.Unlock()
	m.announce()
}

// failure is why the receiver has ended, or nil.
func (m *member) failure() error {
	select {
	case <-m.closing:
		return pubsub.ErrClosed
	default:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failed
}

// await returns nil when Receive has to look again.
func (m *member) await(ctx context.Context) error {
	select {
	case <-m.arrived:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-m.closing:
		return pubsub.ErrClosed
	}
}

// enter is called when Receive begins; what it returns when it ends.
func (m *member) enter() (leave func()) {
	m.receiving.Store(true)
	m.seen()
	return func() {
		m.seen()
		m.receiving.Store(false)
	}
}

// nap pauses after a failed call and reports false when the receiver is to end.
func (m *member) nap(d *time.Duration) bool {
	*d = min(max(2**d, retryFirst), retryMost)
	timer := time.NewTimer(*d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-m.ctx.Done():
		return false
	case <-m.closing:
		return false
	}
}

// call bounds a call in the background.
func (m *member) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(m.ctx, max(m.lease, closeTimeout))
}

// pulse is what a beat tells.
type pulse struct {
	begun  time.Duration
	share  int
	mine   map[int]string // tokens by lane
	taken  []taken
	joined bool
}

// taken is the state of a lane that the member has just got.
type taken struct {
	lane                         int
	token, cursor, beyond, marks string
}

// beat tells the server that the member is well, and which lanes it knows to have.
func (m *member) beat(ctx context.Context, working bool, known []int) (pulse, error) {
	p := pulse{begun: m.driver.now()}
	lanes := []byte(",")
	for _, lane := range known {
		lanes = append(strconv.AppendInt(lanes, int64(lane), 10), ',')
	}
	keys := append([]string{m.topic.meta(), m.topic.members(m.group), m.topic.present(m.group), m.topic.state(m.group)}, m.topic.lanes...)
	answer, err := m.driver.attend(ctx, beatScript, keys, m.group, m.name, millis(m.lease),
		digit(working), digit(m.temporary), digit(m.ordered), string(lanes))
	if err != nil {
		return p, err
	}
	parts, err := answer.ToArray()
	if err != nil || len(parts) != 5 {
		return p, errors.Join(errAnswer, err)
	}
	idle, err1 := parts[0].AsInt64()
	fresh, err2 := parts[1].AsInt64()
	share, err3 := parts[2].AsInt64()
	mine, err4 := parts[3].ToArray()
	got, err5 := parts[4].ToArray()
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return p, err
	}
	p.joined, p.share = fresh > 0, int(share)
	m.mu.Lock()
	m.idle = time.Duration(idle) * time.Millisecond
	m.mu.Unlock()
	return p, p.read(mine, got)
}

var errAnswer = errors.New("redispubsub: a script has answered what it never answers")

func (p *pulse) read(mine, got []rueidis.RedisMessage) error {
	p.mine = make(map[int]string, len(mine)/2)
	for i := 0; i+1 < len(mine); i += 2 {
		lane, err1 := mine[i].AsInt64()
		token, err2 := mine[i+1].ToString()
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		p.mine[int(lane)] = token
	}
	for i := 0; i+4 < len(got); i += 5 {
		lane, err := got[i].AsInt64()
		if err != nil {
			return err
		}
		t := taken{lane: int(lane)}
		for j, text := range []*string{&t.token, &t.cursor, &t.beyond, &t.marks} {
			if *text, err = got[i+1+j].ToString(); err != nil {
				return err
			}
		}
		p.taken = append(p.taken, t)
		p.mine[t.lane] = t.token
	}
	return nil
}

func digit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// ring wakes members up, so that they look at once for what has been given back. One that is not reached looks sooner or
// later.
func (m *member) ring(ctx context.Context, members ...string) {
	if len(members) == 0 {
		return
	}
	b := m.driver.client.B()
	var cmds rueidis.Commands
	for _, name := range members {
		bell := m.topic.bell(m.group, name)
		if m.ordered {
			cmds = append(cmds, b.Xadd().Key(bell).Maxlen().Exact().Threshold("1").Id("*").FieldValue().FieldValue(bellField, m.name).Build(),
				b.Pexpire().Key(bell).Milliseconds(bellLasts.Milliseconds()).Build())
			continue
		}
		cmds = append(cmds, b.Xadd().Key(bell).Nomkstream().Maxlen().Exact().Threshold("8").Id("*").FieldValue().FieldValue(bellField, m.name).Build())
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.driver.client.DoMulti(undated{ctx}, cmds...)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// ringOthers wakes up everybody else who is at work.
func (m *member) ringOthers(ctx context.Context) {
	found := make(chan []string, 1)
	go func() {
		all, _ := m.driver.client.Do(undated{ctx}, m.driver.client.B().Zrange().Key(m.topic.members(m.group)).Min("0").Max("-1").Build()).AsStrSlice()
		found <- slices.DeleteFunc(all, func(name string) bool { return name == m.name })
	}()
	select {
	case others := <-found:
		m.ring(ctx, others...)
	case <-ctx.Done():
	}
}

// bellField says who has rung.
const bellField = "by"

// bellLasts is how long the bell of a member that has died stays.
const bellLasts = 5 * time.Minute

// beatMost bounds the time between two signs of life. Tests of what must not wait for one make it longer.
var beatMost = 5 * time.Second

// every is how often a member gives signs of life.
func (m *member) every() time.Duration { return min(max(m.lease/5, time.Millisecond), beatMost) }

// halt ends the goroutines, at once if they are not done soon.
func (m *member) halt(ctx context.Context) {
	ended := make(chan struct{})
	go func() {
		m.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	m.stop()
	<-ended
}

package rabbitpubsub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/rabbitmq/rabbitpubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// The members of an ordered group come to have about as many lanes each when one joins or leaves while messages flow. No
// two messages of a key are handled at once, each first after those before it, and none twice.
func TestGuaranteeMembersShareLanes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		lanes              int
		two, three, remain []int
	}{
		{8, []int{4, 4}, []int{2, 3, 3}, []int{4, 4}},
		{4, []int{2, 2}, []int{1, 1, 2}, []int{2, 2}},
	} {
		t.Run(fmt.Sprintf("lanes=%d", c.lanes), func(t *testing.T) {
			t.Parallel()
			w := newWork(t, rabbitpubsub.Config{Lanes: c.lanes})
			first := w.join(t, "first")
			w.awaitShares(t, []int{c.lanes})
			w.join(t, "second")
			w.awaitShares(t, c.two)
			w.join(t, "third")
			w.awaitShares(t, c.three)
			require.Zero(t, w.markedSoFar(), "messages that a lane's change of members has marked as delivered before")
			first()
			w.awaitShares(t, c.remain)
			w.finish(t)
		})
	}
}

// Members join and leave at random, also while lanes are being given up. There are more changes in the long form.
func TestGuaranteeOrderWhileMembersComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWork(t, rabbitpubsub.Config{Lanes: 5})
	changes := 8
	if long() {
		changes = 100
	}
	members := []func(){w.join(t, "first")}
	for n := range changes {
		if len(members) == 1 || len(members) < 4 && rand.N(2) == 0 {
			members = append(members, w.join(t, fmt.Sprint("member ", n)))
		} else {
			i := rand.N(len(members))
			members[i]()
			members = slices.Delete(members, i, i+1)
		}
		w.more(t, rand.N(8000))
	}
	w.finish(t)
}

// work is messages that flow, and what becomes of them.
type work struct {
	d    *driver
	cfg  rabbitpubsub.Config
	keys []string
	stop chan struct{}
	done chan struct{} // closed when publishing has stopped

	mu        sync.Mutex
	published int
	handled   int
	again     int
	marked    int // messages that the broker had given to somebody before
	next      map[string]int
	running   map[string]string
	owner     map[int]string // of a lane: who handled its latest message
	faults    []string
}

func newWork(t *testing.T, cfg rabbitpubsub.Config) *work {
	t.Helper()
	cfg.Prefix = freshPrefix()
	w := &work{
		d: newDriver(t, shared(t), cfg), cfg: cfg, stop: make(chan struct{}), done: make(chan struct{}),
		next: make(map[string]int), running: make(map[string]string), owner: make(map[int]string),
	}
	require.NoError(t, open(t, w.d, ordered).Close())
	for n, perLane := 0, make(map[int]int); len(w.keys) < 4*cfg.Lanes; n++ {
		key := strconv.Itoa(n)
		if lane := rabbitpubsub.Lane(cfg, key); perLane[lane] < 4 {
			perLane[lane]++
			w.keys = append(w.keys, key)
		}
	}
	go w.publish()
	t.Cleanup(w.halt)
	return w
}

// publish keeps the queues of all lanes filled.
func (w *work) publish() {
	defer close(w.done)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		for {
			select {
			case <-w.stop:
				return
			case <-tick.C:
			}
			if n-w.furthest() < 100 {
				break
			}
		}
		batch := make([]pubsub.Message, len(w.keys))
		for i, key := range w.keys {
			batch[i] = message(fmt.Sprintf("%s/%d", key, n), key)
			batch[i].Payload = []byte(strconv.Itoa(n))
		}
		errs := w.d.Publish(context.Background(), batch)
		w.mu.Lock()
		if errs != nil {
			w.faults = append(w.faults, fmt.Sprint(errs))
		}
		w.published += len(batch)
		w.mu.Unlock()
	}
}

// furthest is how much of the key that is ahead of the others has been handled.
func (w *work) furthest() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, next := range w.next {
		n = max(n, next)
	}
	return n
}

func (w *work) markedSoFar() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.marked
}

func (w *work) halt() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	<-w.done
}

// join adds a member, with connections of its own.
func (w *work) join(t *testing.T, name string) (leave func()) {
	t.Helper()
	d := newDriver(t, w.d.url, w.cfg)
	bus := pubsub.New(d.Driver) // which remembers no queues to delete while others consume them
	c, err := bus.Open(soon(t), pubsub.Subscription{Topic: "t", Group: "g", Ordered: true})
	require.NoError(t, err)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		ended <- c.Run(ctx, func(_ context.Context, m pubsub.Message) error { return w.handle(name, m) })
	}()
	leave = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(leave)
	return leave
}

func (w *work) handle(name string, m pubsub.Message) error {
	n, err := strconv.Atoi(string(m.Payload))
	if err != nil {
		return err
	}
	w.mu.Lock()
	if other := w.running[m.Key]; other != "" {
		w.faults = append(w.faults, fmt.Sprintf("%s: %s has begun while %s handles the key", m.ID, name, other))
	}
	w.running[m.Key] = name
	w.owner[rabbitpubsub.Lane(w.cfg, m.Key)] = name
	if m.Attempt > 1 {
		w.marked++
	}
	switch next := w.next[m.Key]; {
	case n > next:
		w.faults = append(w.faults, fmt.Sprintf("%s came to %s, before number %d", m.ID, name, next))
	case n < next:
		w.again++
	default:
		w.handled++
		w.next[m.Key]++
	}
	w.mu.Unlock()
	<-time.After(rand.N(time.Millisecond)) // the work
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running[m.Key] = ""
	return nil
}

// awaitShares returns when the members have so many lanes, in ascending order.
func (w *work) awaitShares(t *testing.T, want []int) {
	t.Helper()
	var shares []int
	require.Eventually(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		count := make(map[string]int)
		for _, name := range w.owner {
			count[name]++
		}
		shares = shares[:0]
		for _, n := range count {
			shares = append(shares, n)
		}
		slices.Sort(shares)
		return slices.Equal(shares, want)
	}, patience, 10*time.Millisecond, "the members do not come to have %v lanes", want)
}

// more returns when n more messages have been handled.
func (w *work) more(t *testing.T, n int) {
	t.Helper()
	handled := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.handled
	}
	n += handled()
	require.Eventually(t, func() bool { return handled() >= n }, patience, time.Millisecond, "it does not go on")
}

// finish fails unless everything that was published was handled as it should be.
func (w *work) finish(t *testing.T) {
	t.Helper()
	w.halt()
	require.Eventually(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.handled == w.published
	}, patience, 10*time.Millisecond, "messages are lost")
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Empty(t, w.faults)
	require.Zero(t, w.again, "messages that were handled twice")
	t.Logf("%d messages", w.handled)
}

// A lane goes on that a member has tried in vain to give up, since one of its messages takes too long; later it is given up.
func TestLaneThatCannotBeGivenUpGoesOn(t *testing.T) {
	t.Parallel()
	cfg := rabbitpubsub.Config{Lanes: 2}
	d := newDriver(t, shared(t), cfg)
	keys := make([]string, cfg.Lanes)
	for n := range 100 {
		keys[rabbitpubsub.Lane(cfg, strconv.Itoa(n))] = strconv.Itoa(n)
	}
	short := func(s *pubsub.Subscription) { s.Ordered, s.LaneDepth, s.HandleTimeout = true, 4, 200*time.Millisecond }
	member := open(t, d, short)
	both := func() []pubsub.Delivery {
		publish(t, d, message("m", keys[0]), message("m", keys[1]))
		return receive(t, member, 2)
	}
	slow := both()
	other := open(t, d, short)
	got := make(chan []pubsub.Delivery, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		ds, _ := other.Receive(ctx, 1)
		got <- ds
	}()
	for begun := time.Now(); time.Since(begun) < 4*time.Second; { // it looks every second, and then waits for the handlers
		settle(t, member, pubsub.Ack, both()...)
		require.Empty(t, got, "while a message of the lane was not settled")
	}
	settle(t, member, pubsub.Ack, slow...)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for begun := time.Now(); len(got) == 0; <-ticker.C {
		require.Less(t, time.Since(begun), patience, "no lane is given up")
		publish(t, d, message("m", keys[0]), message("m", keys[1]))
		ds, err := member.Receive(within(t, 100*time.Millisecond), 2)
		if err == nil {
			settle(t, member, pubsub.Ack, ds...)
		}
	}
	require.Len(t, <-got, 1)
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

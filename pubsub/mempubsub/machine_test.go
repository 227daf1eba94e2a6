package mempubsub_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

// A machine plays random steps against a broker and a naive oracle of it: lists of messages, searched from the front.
// What a member of an unordered group gets is foretold exactly; of an ordered one it is checked for what is promised.

const (
	machineLease  = 10 * time.Second
	machineDepth  = 4
	machineRetain = 5
	machineMax    = 12
)

type machine struct {
	driver    *mempubsub.Driver
	lanes     map[string]int // of keys
	crowds    []*crowd
	published int
	retained  []pubsub.Message
	stale     []func() error
}

// step is one thing that happens; what a and b mean depends on it.
type step struct{ action, a, b int }

func newMachine(t *testing.T) *machine {
	m := &machine{
		driver: mempubsub.New(mempubsub.Config{Lanes: 3, MaxPending: machineMax, WhenFull: "reject", Retain: machineRetain}),
		lanes:  make(map[string]int),
	}
	probe := ordered("probe")
	probe.Topic = "probe"
	r := open(t, m.driver, probe)
	for i := range 6 {
		require.Nil(t, m.driver.Publish(t.Context(), []pubsub.Message{{Topic: "probe", Key: machineKey(i)}}))
	}
	for _, d := range receive(t, r, 10) {
		m.lanes[d.Key] = d.Lane
		settle(t, r, pubsub.Ack, 0, d)
	}
	require.NoError(t, r.Close())
	require.NoError(t, m.driver.RemoveGroup("probe", "probe"))
	for i, s := range []pubsub.Subscription{sub("unordered"), ordered("ordered"), sub("temporary"), ordered("passing")} {
		s.Lease, s.LaneDepth, s.Temporary = machineLease, machineDepth, i >= 2
		m.crowds = append(m.crowds, &crowd{sub: s})
	}
	return m
}

func machineKey(i int) string { return fmt.Sprint("key", i%6) }

func (m *machine) play(t *testing.T, steps []step) error {
	for i, s := range steps {
		err := m.step(t, s)
		if err == nil {
			synctest.Wait()
			err = m.check(s.action != 8)
		}
		if err != nil {
			return fmt.Errorf("step %d, %+v: %w", i, s, err)
		}
	}
	return m.finish(t)
}

func (m *machine) step(t *testing.T, s step) error {
	c := m.crowds[s.a%len(m.crowds)]
	var who *member
	if len(c.members) > 0 {
		who = c.members[s.b%len(c.members)]
	}
	switch {
	case s.action <= 2:
		return m.publish(t, s)
	case s.action == 3 && len(c.members) < 3:
		return m.open(t, c, s.b)
	case s.action == 4 && who != nil && s.b%3 == 0:
		return m.close(who)
	case s.action <= 6 && who != nil && !who.waiting:
		who.receive(1 + s.b%5)
	case s.action == 7 && who != nil && who.waiting:
		who.cancel()
	case s.action == 8:
		return m.advance(time.Duration(s.b) * time.Second)
	case s.action == 9 && !c.sub.Temporary && s.b%3 == 0:
		return m.remove(c)
	case s.action == 10 && len(m.stale) > 0:
		return m.stale[s.b%len(m.stale)]()
	case who != nil:
		return m.settle(t, who, s.b)
	}
	return nil
}

func (m *machine) publish(t *testing.T, s step) error {
	var batch []pubsub.Message
	for i := range 1 + s.b%3 {
		m.published++
		msg := pubsub.Message{ID: fmt.Sprint(m.published), Topic: "t", Key: machineKey(s.a + i*s.b), Time: time.Now()}
		if s.action == 2 && s.a%2 == 0 {
			msg.DeliverAt = msg.Time.Add(time.Duration(i+s.b-3) * time.Second)
		}
		batch = append(batch, msg)
	}
	errs := m.driver.Publish(t.Context(), batch)
	for i, msg := range batch {
		full := slices.ContainsFunc(m.crowds, func(c *crowd) bool { return len(c.queue)+len(c.future) >= machineMax })
		var err error
		if errs != nil {
			err = errs[i]
		}
		if errors.Is(err, mempubsub.ErrFull) != full || !full && err != nil {
			return fmt.Errorf("publish of %s, and full is %v: %w", msg.ID, full, err)
		}
		if full {
			continue // and so are the rest
		}
		m.retained = append(m.retained, msg)
		m.retained = m.retained[max(0, len(m.retained)-machineRetain):]
		for _, c := range m.crowds {
			if c.exists {
				c.add(m, msg)
			}
		}
	}
	return nil
}

func (m *machine) open(t *testing.T, c *crowd, b int) error {
	s := c.sub
	from := time.Now().Add(-time.Duration(b) * time.Second)
	s.Start = []string{"end", "start", from.Format(time.RFC3339Nano)}[b%3]
	r, err := m.driver.Open(t.Context(), s)
	if err != nil {
		return err
	}
	if !c.exists {
		*c = crowd{sub: c.sub, exists: true, epochs: map[int]uint64{}, owners: map[int]*member{}, anew: map[int]bool{}}
		for _, msg := range m.retained {
			if b%3 == 1 || b%3 == 2 && !msg.Time.Before(from) {
				c.add(m, msg)
			}
		}
	}
	c.members = append(c.members, &member{crowd: c, r: r})
	return nil
}

func (m *machine) close(who *member) error {
	c := who.crowd
	if err := who.r.Close(); err != nil {
		return err
	}
	synctest.Wait()
	if who.waiting {
		if err := who.ended(pubsub.ErrClosed); err != nil {
			return err
		}
	}
	c.members = slices.DeleteFunc(c.members, func(other *member) bool { return other == who })
	for _, h := range c.queue {
		if h.holder == who {
			m.letGo(h)
		}
	}
	if c.sub.Temporary && len(c.members) == 0 {
		*c = crowd{sub: c.sub}
	}
	return nil
}

func (m *machine) remove(c *crowd) error {
	err := m.driver.RemoveGroup("t", c.sub.Group)
	if (err != nil) != (len(c.members) > 0) {
		return fmt.Errorf("RemoveGroup with %d members: %w", len(c.members), err)
	}
	if err == nil {
		*c = crowd{sub: c.sub}
	}
	return nil
}

// letGo makes a message deliverable again. What was known of its delivery is stale.
func (m *machine) letGo(h *held) {
	r, token := h.holder.r, h.token
	h.holder, h.token = nil, nil
	m.stale = append(m.stale, func() error {
		return r.Settle(context.Background(), []pubsub.Verdict{{Token: token, Kind: pubsub.Ack}, {Token: token, Kind: pubsub.Nack}})
	})
}

// settle gives a verdict about some of what a member holds.
func (m *machine) settle(t *testing.T, who *member, b int) error {
	c := who.crowd
	kind := []pubsub.VerdictKind{pubsub.Ack, pubsub.Nack, pubsub.Ack, pubsub.Extend}[b%4]
	var delay time.Duration
	if kind == pubsub.Nack && !c.sub.Ordered {
		delay = time.Duration(b%7) * time.Second
	}
	var verdicts []pubsub.Verdict
	for i, h := range slices.Clone(c.queue) {
		if h.holder != who || (i+b)%3 == 0 {
			continue
		}
		verdicts = append(verdicts, pubsub.Verdict{Token: h.token, Kind: kind, Delay: delay})
		switch kind {
		case pubsub.Extend:
			h.deadline = time.Now().Add(machineLease)
			continue
		case pubsub.Ack:
			c.queue = slices.DeleteFunc(c.queue, func(other *held) bool { return other == h })
		}
		m.letGo(h)
		h.notUntil = time.Now().Add(delay)
	}
	return who.r.Settle(t.Context(), verdicts)
}

// advance lets time pass, from one event to the next.
func (m *machine) advance(d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		<-time.After(time.Until(m.nextEvent(end)))
		synctest.Wait()
		m.pass(time.Now())
		if err := m.check(false); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) nextEvent(end time.Time) time.Time {
	next := end
	consider := func(t time.Time) {
		if t.After(time.Now()) && t.Before(next) {
			next = t
		}
	}
	for _, c := range m.crowds {
		for _, h := range c.future {
			consider(h.DeliverAt)
		}
		for _, h := range c.queue {
			consider(h.notUntil)
			if h.holder != nil {
				consider(h.deadline)
			}
		}
	}
	return next
}

// pass applies what happens at a point in time.
func (m *machine) pass(now time.Time) {
	for _, c := range m.crowds {
		for len(c.future) > 0 && !c.future[0].DeliverAt.After(now) {
			c.queue, c.future = append(c.queue, c.future[0]), c.future[1:]
		}
		for _, h := range c.queue {
			if h.holder == nil || h.deadline.After(now) {
				continue
			}
			if !c.sub.Ordered {
				m.letGo(h)
				continue
			}
			c.anew[h.lane] = true
			for _, other := range c.queue {
				if other.lane == h.lane && other.holder != nil {
					m.letGo(other)
				}
			}
		}
	}
}

// check takes in what was delivered, and looks at everything. Exact is set when one thing has happened.
func (m *machine) check(exact bool) error {
	pending, groups, receivers := 0, 0, 0
	for _, c := range m.crowds {
		if err := c.harvest(exact); err != nil {
			return fmt.Errorf("group %s: %w", c.sub.Group, err)
		}
		if err := c.nothingIsLeft(); err != nil {
			return fmt.Errorf("group %s: %w", c.sub.Group, err)
		}
		pending += len(c.queue) + len(c.future)
		receivers += len(c.members)
		if c.exists {
			groups++
		}
		if len(c.queue)+len(c.future) > machineMax {
			return fmt.Errorf("group %s has %d messages", c.sub.Group, len(c.queue)+len(c.future))
		}
	}
	if s := m.driver.Stats(); s.Pending != pending || s.Groups != groups || s.Receivers != receivers {
		return fmt.Errorf("%+v: the oracle has %d pending, %d groups, %d receivers", s, pending, groups, receivers)
	}
	return nil
}

// finish drains every group by a new member, which must get all that is left.
func (m *machine) finish(t *testing.T) error {
	for _, c := range m.crowds {
		for c.exists && len(c.members) > 0 && (!c.sub.Temporary || len(c.members) > 1) {
			if err := m.close(c.members[0]); err != nil {
				return err
			}
			if err := m.check(true); err != nil {
				return fmt.Errorf("at the end: %w", err)
			}
		}
	}
	if err := m.advance(time.Minute); err != nil {
		return fmt.Errorf("at the end: %w", err)
	}
	for _, c := range m.crowds {
		if !c.exists {
			continue
		}
		if len(c.members) == 0 {
			if err := m.open(t, c, 0); err != nil {
				return err
			}
		}
		for who := c.members[0]; len(c.queue) > 0; {
			before := len(c.queue)
			if !who.waiting {
				who.receive(100)
			}
			synctest.Wait()
			if err := m.check(true); err != nil {
				return fmt.Errorf("at the end: %w", err)
			}
			var verdicts []pubsub.Verdict
			for _, h := range c.queue {
				if h.holder == who {
					verdicts = append(verdicts, pubsub.Verdict{Token: h.token, Kind: pubsub.Ack})
				}
			}
			if err := who.r.Settle(t.Context(), verdicts); err != nil {
				return err
			}
			c.queue = slices.DeleteFunc(c.queue, func(h *held) bool { return h.holder == who })
			if len(c.queue) == before {
				return fmt.Errorf("group %s: %d messages are lost", c.sub.Group, before)
			}
		}
	}
	return nil
}

func TestAgainstANaiveBroker(t *testing.T) {
	draw := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{rapid.IntRange(0, 13).Draw(t, "action"), rapid.IntRange(0, 7).Draw(t, "a"), rapid.IntRange(0, 12).Draw(t, "b")}
	}), 40, 200)
	rounds := 10
	if os.Getenv("BACKSTAY_LONG") == "1" {
		rounds = 1000
	}
	played := 0
	for range rounds {
		rapid.Check(t, func(rt *rapid.T) {
			var err error
			steps := draw.Draw(rt, "steps")
			played += len(steps)
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				err = m.play(t, steps)
				_ = m.driver.Close()
				synctest.Wait()
			})
			require.NoError(rt, err)
		})
	}
	require.Greater(t, played, 3000*rounds)
}

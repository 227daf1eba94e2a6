package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
)

// publisher is a driver that can only publish.
type publisher struct {
	*scripted
	send func(context.Context, []pubsub.Message) []error
}

func newPublisher(caps pubsub.Capabilities, send func(context.Context, []pubsub.Message) []error) *publisher {
	return &publisher{newScripted(caps), send}
}

func (p *publisher) Publish(ctx context.Context, msgs []pubsub.Message) []error {
	return p.send(ctx, msgs)
}

// untilDone waits for the end of ctx and then fails the first message in doubt and the others without.
func untilDone(ctx context.Context, msgs []pubsub.Message) []error {
	<-ctx.Done()
	errs := make([]error, len(msgs))
	for i := range errs {
		errs[i] = ctx.Err()
	}
	errs[0] = fmt.Errorf("%w: %w", ctx.Err(), pubsub.ErrInDoubt)
	return errs
}

func TestPublishTimeout(t *testing.T) {
	two := []pubsub.Message{{Topic: "t", ID: "a"}, {Topic: "t", ID: "b"}}
	for name, tc := range map[string]struct {
		opts []pubsub.Option
		own  time.Duration // the caller's deadline
		want time.Duration
	}{
		"default":          {want: 30 * time.Second},
		"zero":             {opts: []pubsub.Option{pubsub.WithPublishTimeout(0)}, want: 30 * time.Second},
		"set":              {opts: []pubsub.Option{pubsub.WithPublishTimeout(time.Second)}, want: time.Second},
		"caller's sooner":  {own: time.Second, want: time.Second},
		"caller's later":   {own: time.Minute, want: 30 * time.Second},
		"off":              {opts: []pubsub.Option{pubsub.WithPublishTimeout(-1)}, own: time.Hour, want: time.Hour},
		"off, no deadline": {opts: []pubsub.Option{pubsub.WithPublishTimeout(-1)}},
	} {
		for _, obeys := range []bool{false, true} {
			t.Run(fmt.Sprint(name, "/", obeys), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if tc.own > 0 {
						ctx, cancel = context.WithTimeout(ctx, tc.own)
						defer cancel()
					}
					want := tc.want
					if want == 0 {
						want = 1000 * time.Hour
						time.AfterFunc(want, cancel)
					}
					begun := time.Now()
					var told time.Time // the deadline that the driver sees
					d := newPublisher(pubsub.Capabilities{PublishObeysContext: obeys}, func(ctx context.Context, msgs []pubsub.Message) []error {
						told, _ = ctx.Deadline()
						return untilDone(ctx, msgs)
					})
					err := pubsub.New(d, tc.opts...).Publish(ctx, two...)
					require.Equal(t, want, time.Since(begun))
					if tc.want > 0 {
						require.Equal(t, want, told.Sub(begun))
					}
					var pe *pubsub.PublishError
					require.ErrorAs(t, err, &pe)
					require.Len(t, pe.Failed, 2)
					require.True(t, pe.Failed[0].InDoubt, "the driver says so")
					require.False(t, pe.Failed[1].InDoubt, "the driver does not say so")
				})
			})
		}
	}
}

func TestPublishLeavesADriverBehindThatIgnoresItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan []error)
		left := make(chan struct{})
		d := newPublisher(pubsub.Capabilities{}, func(context.Context, []pubsub.Message) []error {
			defer close(left)
			return <-answer
		})
		begun := time.Now()
		err := pubsub.New(d, pubsub.WithPublishTimeout(time.Minute)).Publish(t.Context(), pubsub.Message{Topic: "t"}, pubsub.Message{Topic: "t"})
		require.Equal(t, time.Minute+time.Second, time.Since(begun))
		var pe *pubsub.PublishError
		require.ErrorAs(t, err, &pe)
		require.Len(t, pe.Failed, 2)
		require.True(t, pe.Failed[0].InDoubt && pe.Failed[1].InDoubt)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		answer <- nil // when the driver returns at last, so does the goroutine
		<-left
	})
}

func TestPublishLeavesADriverBehindWhenItsCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan []error)
		d := newPublisher(pubsub.Capabilities{}, func(context.Context, []pubsub.Message) []error { return <-answer })
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begun := time.Now()
		err := pubsub.New(d).Publish(ctx, pubsub.Message{Topic: "t"})
		require.Equal(t, 2*time.Second, time.Since(begun))
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, pubsub.ErrInDoubt)
		close(answer)
	})
}

func TestTheContextOfAPublishEndsWithIt(t *testing.T) {
	for _, obeys := range []bool{false, true} {
		var kept context.Context
		d := newPublisher(pubsub.Capabilities{PublishObeysContext: obeys}, func(ctx context.Context, _ []pubsub.Message) []error {
			kept = ctx
			if ctx.Err() != nil {
				t.Error("it has ended before")
			}
			return nil
		})
		require.NoError(t, pubsub.New(d).Publish(t.Context(), pubsub.Message{Topic: "t"}))
		require.ErrorIs(t, kept.Err(), context.Canceled, "or its timer would stay")
	}
}

// A late answer counts, if it is not too late.
func TestPublishTakesTheAnswerOfADriverThatIsSlowToObey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newPublisher(pubsub.Capabilities{}, func(ctx context.Context, _ []pubsub.Message) []error {
			<-ctx.Done()
			take(999 * time.Millisecond)
			return nil
		})
		require.NoError(t, pubsub.New(d).Publish(t.Context(), pubsub.Message{Topic: "t"}))
	})
}

func TestAnObedientDriverIsCalledByItsCaller(t *testing.T) {
	d := newPublisher(pubsub.Capabilities{PublishObeysContext: true}, func(context.Context, []pubsub.Message) []error { panic("mine") })
	bus := pubsub.New(d)
	require.PanicsWithValue(t, "mine", func() { _ = bus.Publish(t.Context(), pubsub.Message{Topic: "t"}) })

	d.send = func(context.Context, []pubsub.Message) []error { return nil }
	ctx, now := t.Context(), time.Now()
	m := pubsub.Message{Topic: "t", ID: "id", Time: now}
	allocs := testing.AllocsPerRun(100, func() { _ = bus.Publish(ctx, m) })
	require.LessOrEqual(t, allocs, 2.0, "the copy of the messages and the deadline")
}

func TestDeliverAtIsRefusedBeforeSending(t *testing.T) {
	later := pubsub.Message{Topic: "t", ID: "later", DeliverAt: time.Now().Add(time.Hour)}
	sent := 0
	d := newPublisher(pubsub.Capabilities{}, func(_ context.Context, msgs []pubsub.Message) []error {
		sent += len(msgs)
		return nil
	})
	err := pubsub.New(d).Publish(t.Context(), pubsub.Message{Topic: "t", ID: "now"}, later)
	require.Zero(t, sent)
	var pe *pubsub.PublishError
	require.ErrorAs(t, err, &pe)
	require.Len(t, pe.Failed, 2)
	require.Equal(t, &pubsub.CapabilityError{Driver: "scripted", Capability: "DeliverAt"}, pe.Failed[1].Err)
	require.False(t, pe.Failed[1].InDoubt)
	require.ErrorIs(t, err, pubsub.ErrUnsupported)
	_, permanent := pe.Failed[0].Err.(interface{ Permanent() bool })
	require.False(t, permanent)

	d.caps.DeliverAt = true
	require.NoError(t, pubsub.New(d).Publish(t.Context(), later))
	require.Equal(t, 1, sent)
}

func TestDeliverAtOfThePastIsPassedAsZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []time.Time
		d := newPublisher(pubsub.Capabilities{}, func(_ context.Context, msgs []pubsub.Message) []error {
			for _, m := range msgs {
				got = append(got, m.DeliverAt)
			}
			return nil
		})
		now := time.Now()
		past := []pubsub.Message{{Topic: "t"}, {Topic: "t", DeliverAt: now.Add(-time.Nanosecond)}, {Topic: "t", DeliverAt: now}}
		require.NoError(t, pubsub.New(d).Publish(t.Context(), past...))
		require.Equal(t, make([]time.Time, 3), got)

		got, d.caps.DeliverAt = nil, true
		require.NoError(t, pubsub.New(d).Publish(t.Context(), append(past, pubsub.Message{Topic: "t", DeliverAt: now.Add(1)})...))
		require.Equal(t, append(make([]time.Time, 3), now.Add(1)), got)
	})
}

func TestOpenNamesATemporaryGroup(t *testing.T) {
	d := &opener{scripted: newScripted(pubsub.Capabilities{Temporary: true})}
	bus := pubsub.New(d)
	for range 2 {
		_, err := bus.Open(t.Context(), pubsub.Subscription{Topic: "t", Temporary: true})
		require.NoError(t, err)
	}
	require.Len(t, d.opened, 2)
	for _, s := range d.opened {
		require.Regexp(t, "^tmp-[0-9a-f]{32}$", s.Group)
		require.True(t, s.Temporary)
		require.Equal(t, "t/"+s.Group, s.Name)
	}
	require.NotEqual(t, d.opened[0].Group, d.opened[1].Group)

	c, err := bus.Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "mine", Temporary: true})
	require.NoError(t, err)
	require.Equal(t, "mine", c.Config().Group)
	require.NoError(t, c.Close())

	_, err = bus.Open(t.Context(), pubsub.Subscription{Topic: "t"})
	require.ErrorContains(t, err, "Group")

	d.caps.Temporary = false
	_, err = bus.Open(t.Context(), pubsub.Subscription{Topic: "t", Temporary: true})
	require.ErrorIs(t, err, pubsub.ErrUnsupported)
	require.ErrorContains(t, err, "Temporary")
	require.NoError(t, bus.Close())
}

func TestBusTellsItsCapabilities(t *testing.T) {
	d := newScripted(pubsub.Capabilities{Ordered: true, Dedup: time.Minute})
	require.Equal(t, d.caps, pubsub.New(d).Capabilities())
}

// opener remembers what it was asked to open.
type opener struct {
	*scripted
	opened []pubsub.Subscription
}

func (o *opener) Open(ctx context.Context, s pubsub.Subscription) (pubsub.Receiver, error) {
	o.opened = append(o.opened, s)
	return o.scripted.Open(ctx, s)
}

func TestOpenIsRefusedWithoutTheCapability(t *testing.T) {
	all := pubsub.Capabilities{Ordered: true, ReplayFromStart: true, ReplayFromTime: true, Temporary: true}
	for name, s := range map[string]pubsub.Subscription{
		"Ordered":         {Ordered: true},
		"ReplayFromStart": {Start: "start"},
		"ReplayFromTime":  {Start: "2026-01-02T03:04:05Z"},
		"Temporary":       {Temporary: true},
	} {
		s.Topic, s.Group = "t", "g"
		_, err := pubsub.New(newScripted(pubsub.Capabilities{})).Open(t.Context(), s)
		lacks, ok := errors.AsType[*pubsub.CapabilityError](err)
		require.True(t, ok, name)
		require.Equal(t, name, lacks.Capability)
		bus := pubsub.New(newScripted(all))
		_, err = bus.Open(t.Context(), s)
		require.NoError(t, err, name)
		require.NoError(t, bus.Close())
	}
}

package pubsub_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
)

type mark struct{}

// marked is a context with a value, under which a driver saw the call.
func marked(ctx context.Context, n int) context.Context { return context.WithValue(ctx, mark{}, n) }

// A driver that forgets its context is given the same again, each time with the values and the deadline of the call.
func TestAForgottenContextServesTheNextPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []context.Context
		d := newPublisher(pubsub.Capabilities{PublishObeysContext: true, PublishForgetsContext: true},
			func(ctx context.Context, _ []pubsub.Message) []error {
				require.Equal(t, len(seen), ctx.Value(mark{}))
				end, ok := ctx.Deadline()
				require.True(t, ok)
				require.Equal(t, 30*time.Second, time.Until(end))
				seen = append(seen, ctx)
				return nil
			})
		bus := pubsub.New(d)
		for i := range 3 {
			require.NoError(t, bus.Publish(marked(t.Context(), i), pubsub.Message{Topic: "t"}))
			take(time.Minute) // the deadline of the call before is over
		}
		require.Same(t, seen[0], seen[1])
		require.Same(t, seen[0], seen[2])
	})
}

// What a driver has asked once may have been handed on: it ends with its call and is used no more.
func TestAContextThatWasAskedIsNotUsedAgain(t *testing.T) {
	var seen []context.Context
	d := newPublisher(pubsub.Capabilities{PublishObeysContext: true, PublishForgetsContext: true},
		func(ctx context.Context, _ []pubsub.Message) []error {
			require.NoError(t, ctx.Err())
			seen = append(seen, ctx)
			return nil
		})
	bus := pubsub.New(d)
	for range 2 {
		require.NoError(t, bus.Publish(t.Context(), pubsub.Message{Topic: "t"}))
		require.ErrorIs(t, seen[len(seen)-1].Err(), context.Canceled)
	}
	require.NotSame(t, seen[0], seen[1])
}

// One that may keep its context, or may be left behind, has it for itself.
func TestAContextThatMayBeKeptIsNotUsedAgain(t *testing.T) {
	for _, caps := range []pubsub.Capabilities{{PublishObeysContext: true}, {PublishForgetsContext: true}} {
		var seen []context.Context
		bus := pubsub.New(newPublisher(caps, func(ctx context.Context, _ []pubsub.Message) []error {
			seen = append(seen, ctx)
			return nil
		}))
		for i := range 2 {
			require.NoError(t, bus.Publish(marked(t.Context(), i), pubsub.Message{Topic: "t"}))
		}
		for i, ctx := range seen {
			require.Equal(t, i, ctx.Value(mark{}))
			require.ErrorIs(t, ctx.Err(), context.Canceled)
		}
	}
}

func TestAPublishAllocatesTheCopyOfItsMessages(t *testing.T) {
	d := newPublisher(pubsub.Capabilities{PublishObeysContext: true, PublishForgetsContext: true, Fixed: true},
		func(context.Context, []pubsub.Message) []error { return nil })
	bus := pubsub.New(d)
	ctx, m := t.Context(), pubsub.Message{Topic: "t", ID: "id", Time: time.Now()}
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _ = bus.Publish(ctx, m) }), 1.0)
}

// changing has other capabilities each time that it is asked.
type changing struct {
	*scripted
	asked int
}

func (c *changing) Capabilities() pubsub.Capabilities {
	c.asked++
	return pubsub.Capabilities{Driver: "changing", MaxPayload: c.asked, Fixed: c.caps.Fixed}
}

func TestCapabilitiesAreThoseOfNowUnlessTheyAreFixed(t *testing.T) {
	for _, fixed := range []bool{false, true} {
		d := &changing{scripted: newScripted(pubsub.Capabilities{Fixed: fixed})}
		bus := pubsub.New(d)
		m := pubsub.Message{Topic: "t", Payload: []byte("xx")}
		if fixed {
			require.ErrorContains(t, bus.Publish(t.Context(), m), "at most 1")
			require.ErrorContains(t, bus.Publish(t.Context(), m), "at most 1")
			require.Equal(t, 1, d.asked)
			continue
		}
		require.NoError(t, bus.Publish(t.Context(), m), "the second answer")
		require.NoError(t, bus.Publish(t.Context(), m))
		require.Equal(t, 3, d.asked)
	}
}

// A handler may keep its context, which ends with the call and is nobody else's.
func TestEveryHandlerHasAContextOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 40
		var seen []context.Context
		begun := time.Now()
		d := newScripted(pubsub.Capabilities{})
		_, stop := start(t, d, pubsub.Subscription{Topic: "t", Group: "g", Concurrency: 1}, func(ctx context.Context, _ pubsub.Message) error {
			seen = append(seen, ctx)
			take(time.Second)
			return nil
		})
		for range n {
			d.deliver(1, "m")
		}
		take(time.Hour)
		require.NoError(t, stop())
		require.Len(t, seen, n)
		for i, ctx := range seen {
			require.ErrorIs(t, ctx.Err(), context.Canceled)
			end, ok := ctx.Deadline()
			require.True(t, ok)
			require.Equal(t, time.Duration(i)*time.Second+30*time.Second, end.Sub(begun))
		}
	})
}

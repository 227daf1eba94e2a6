package pubsub_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
)

// A driver takes back what it has delivered: no handler begins with it, and what was taken back comes again in a new
// epoch of its lane.
func TestGuaranteeStaleIsNotHandled(t *testing.T) {
	for name, ordered := range map[string]bool{"ordered": true, "unordered": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newScripted(pubsub.Capabilities{Ordered: true})
				bus := pubsub.New(d)
				c, err := bus.Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", Ordered: ordered, Concurrency: 1})
				require.NoError(t, err)
				var gone atomic.Bool
				delivery := func(id string, epoch uint64, stale func() bool) pubsub.Delivery {
					m := pubsub.Message{ID: id, Topic: "t", Key: id, Attempt: 1}
					return pubsub.Delivery{Message: m, Epoch: epoch, Token: token(id, epoch), Stale: stale}
				}
				d.deliveries <- []pubsub.Delivery{delivery("a", 1, gone.Load), delivery("b", 1, gone.Load)}
				begun, release := make(chan string, 10), make(chan struct{})
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() {
					ended <- c.Run(ctx, func(_ context.Context, m pubsub.Message) error {
						begun <- m.ID
						<-release
						return nil
					})
				}()
				require.Equal(t, "a", <-begun)
				gone.Store(true)
				close(release)
				elapse(time.Second)
				require.Empty(t, begun, "a stale delivery is handled")
				d.deliveries <- []pubsub.Delivery{delivery("b", 2, nil)}
				require.Equal(t, "b", <-begun)
				cancel()
				require.NoError(t, <-ended)
				require.NoError(t, bus.Close())
			})
		})
	}
}

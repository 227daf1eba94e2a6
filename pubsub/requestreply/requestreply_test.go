package requestreply_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
	"github.com/backstay-go/backstay/pubsub/requestreply"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a broker and what is connected to it.
type world struct {
	*testing.T
	driver *mempubsub.Driver
	bus    *pubsub.Bus // the client's
}

// inBubble runs a test on the bubble's clock with a broker of its own.
func inBubble(t *testing.T, fn func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := mempubsub.New(mempubsub.Config{})
		w := &world{T: t, driver: d, bus: pubsub.New(d)}
		defer func() { require.NoError(t, w.bus.Close()) }()
		fn(w)
	})
}

type client = requestreply.Client[string, string]

func (w *world) client(cfg requestreply.ClientConfig, opts ...requestreply.Option) *client {
	w.Helper()
	if cfg.Topic == "" {
		cfg.Topic = "echo"
	}
	c, err := requestreply.NewClient[string, string](context.Background(), w.bus, cfg, opts...)
	require.NoError(w, err)
	return c
}

// serve runs fn for the requests of group "servers", as a process of its own; stop drains it, kill cuts it off.
func (w *world) serve(fn func(context.Context, string) (string, error), opts ...requestreply.Option) (s *requestreply.Server[string, string], stop, kill func()) {
	w.Helper()
	d := w.driver.Connect()
	bus := pubsub.New(d)
	s = requestreply.NewServer(bus, requestreply.ServerConfig{MaxClockSkew: -1}, fn, opts...)
	c, err := bus.Open(context.Background(), pubsub.Subscription{Topic: "echo", Group: "servers", Concurrency: 1000, HandleTimeout: -1, DrainTimeout: time.Minute})
	require.NoError(w, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Run(ctx, s.Handle)
	}()
	return s, func() {
			cancel()
			<-ended
			require.NoError(w, bus.Close())
		}, func() {
			require.NoError(w, d.Close()) // its leases go to others; nothing that it says any more is heard
			<-ended
		}
}

func upper(_ context.Context, s string) (string, error) { return strings.ToUpper(s), nil }

// in runs fn in d from now.
func in(d time.Duration, fn func()) { time.AfterFunc(d, fn) }

func TestACallIsAnswered(t *testing.T) {
	inBubble(t, func(w *world) {
		c := w.client(requestreply.ClientConfig{})
		server, stop, _ := w.serve(upper)
		defer stop()
		got, err := c.Call(context.Background(), "hello")
		require.NoError(t, err)
		require.Equal(t, "HELLO", got)
		require.Equal(t, requestreply.ClientStats{Calls: 1, Replies: 1}, c.Stats())
		require.Equal(t, requestreply.ServerStats{Executed: 1}, server.Stats())
	})
}

func TestAThousandConcurrentCallsGetTheirOwnReplies(t *testing.T) {
	inBubble(t, func(w *world) {
		c, other := w.client(requestreply.ClientConfig{}), w.client(requestreply.ClientConfig{})
		_, stop, _ := w.serve(func(_ context.Context, s string) (string, error) {
			<-time.After(time.Duration(len(s)) * time.Millisecond) // so that replies overtake one another
			return strings.ToUpper(s), nil
		})
		defer stop()
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				req := fmt.Sprint("r", i)
				got, err := c.Call(context.Background(), req)
				require.NoError(t, err)
				require.Equal(t, strings.ToUpper(req), got)
			})
		}
		wg.Wait()
		synctest.Wait()
		require.Equal(t, requestreply.ClientStats{Calls: 1000, Replies: 1000}, c.Stats())
		require.Equal(t, requestreply.ClientStats{OtherReplies: 1000}, other.Stats(), "replies to one client are not those of another")
	})
}

func TestCallsBeyondMaxCallsAreRefused(t *testing.T) {
	inBubble(t, func(w *world) {
		c := w.client(requestreply.ClientConfig{MaxCalls: 2, Timeout: time.Second})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { _, _ = c.Call(context.Background(), "") })
		}
		synctest.Wait()
		_, err := c.Call(context.Background(), "")
		require.ErrorIs(t, err, requestreply.ErrFull)
		require.NotErrorIs(t, err, pubsub.ErrInDoubt)
		require.True(t, err.(interface{ Rejected() bool }).Rejected())
		require.Equal(t, 2, c.Stats().Outstanding)
		wg.Wait()
		require.Equal(t, requestreply.ClientStats{Calls: 3, Rejected: 1, InDoubt: 2}, c.Stats(), "each call gives its place back")
	})
}

// request is one as a client would send it, with the clock of the client off by skew.
// outbox keeps what a server publishes.
func TestALateReplyIsDroppedAndCounted(t *testing.T) {
	inBubble(t, func(w *world) {
		c := w.client(requestreply.ClientConfig{})
		_, stop, _ := w.serve(func(context.Context, string) (string, error) {
			<-time.After(2 * time.Second) // and it does not look at its context
			return "late", nil
		})
		defer stop()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		begun := time.Now()
		_, err := c.Call(ctx, "")
		require.Equal(t, time.Second, time.Since(begun))
		var failed *requestreply.Error
		require.ErrorAs(t, err, &failed)
		require.True(t, failed.InDoubt)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, pubsub.ErrInDoubt)
		require.Zero(t, c.Stats().LateReplies)
		<-time.After(2 * time.Second)
		require.Equal(t, requestreply.ClientStats{Calls: 1, InDoubt: 1, LateReplies: 1}, c.Stats())
	})
}

func TestACancelledCallIsInDoubt(t *testing.T) {
	inBubble(t, func(w *world) {
		c := w.client(requestreply.ClientConfig{Timeout: -1})
		ctx, cancel := context.WithCancel(context.Background())
		in(time.Second, cancel)
		_, err := c.Call(ctx, "")
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, pubsub.ErrInDoubt)
		_, err = c.Call(ctx, "")
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, pubsub.ErrInDoubt, "nothing was sent")
	})
}

func TestDuplicateRepliesAreDropped(t *testing.T) {
	inBubble(t, func(w *world) {
		c := w.client(requestreply.ClientConfig{})
		_, stop, _ := w.serve(upper)
		defer stop()
		replies, err := w.bus.Open(context.Background(), pubsub.Subscription{Topic: "echo.reply", Group: "copier"})
		require.NoError(t, err)
		got := make(chan string)
		go func() {
			s, _ := c.Call(context.Background(), "x")
			got <- s
		}()
		ctx, cancel := context.WithCancel(context.Background())
		copied := make(chan error, 1)
		var once sync.Once
		go func() {
			copied <- replies.Run(ctx, func(_ context.Context, m pubsub.Message) (err error) {
				once.Do(func() { err = w.bus.Publish(context.Background(), m, m) })
				return err
			})
		}()
		require.Equal(t, "X", <-got)
		synctest.Wait()
		cancel()
		require.NoError(t, <-copied)
		require.Equal(t, requestreply.ClientStats{Calls: 1, Replies: 1, LateReplies: 2}, c.Stats())
	})
}

func TestAnotherServerTakesOverFromAKilledOne(t *testing.T) {
	inBubble(t, func(w *world) {
		c := w.client(requestreply.ClientConfig{})
		running := make(chan string, 2)
		_, _, kill := w.serve(func(ctx context.Context, _ string) (string, error) {
			running <- requestreply.IdempotencyKey(ctx)
			<-ctx.Done()
			return "", ctx.Err()
		})
		got := make(chan string)
		go func() {
			s, _ := c.Call(context.Background(), "x")
			got <- s
		}()
		first := <-running
		go kill()
		_, stop, _ := w.serve(func(ctx context.Context, s string) (string, error) {
			running <- requestreply.IdempotencyKey(ctx)
			return upper(ctx, s)
		})
		defer stop()
		require.Equal(t, "X", <-got)
		require.NotEmpty(t, first)
		require.Equal(t, first, <-running, "both runs have the key of the request")
		<-time.After(time.Minute) // the first run's deadline, and its drain
	})
}

func TestACallWithoutServersEndsInDoubt(t *testing.T) {
	inBubble(t, func(w *world) {
		c := w.client(requestreply.ClientConfig{Timeout: time.Second})
		_, stop, kill := w.serve(func(ctx context.Context, _ string) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		})
		defer stop()
		in(time.Millisecond, kill)
		_, err := c.Call(context.Background(), "")
		require.ErrorIs(t, err, pubsub.ErrInDoubt)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestCloseEndsWaitingCalls(t *testing.T) {
	for name, end := range map[string]func(*world, *client) error{
		"client": func(_ *world, c *client) error { return c.Close() },
		"bus":    func(w *world, _ *client) error { return w.bus.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				c := w.client(requestreply.ClientConfig{})
				in(time.Second, func() { require.NoError(t, end(w, c)) })
				var wg sync.WaitGroup
				for range 10 {
					wg.Go(func() {
						begun := time.Now()
						_, err := c.Call(context.Background(), "")
						require.ErrorIs(t, err, requestreply.ErrClosed)
						require.ErrorIs(t, err, pubsub.ErrInDoubt)
						require.Equal(t, time.Second, time.Since(begun))
					})
				}
				wg.Wait()
				_, err := c.Call(context.Background(), "")
				require.ErrorIs(t, err, requestreply.ErrClosed)
				require.NotErrorIs(t, err, pubsub.ErrInDoubt)
				require.NoError(t, c.Close())
				require.NoError(t, c.Close())
				require.Zero(t, c.Stats().Outstanding)
			})
		})
	}
}

func TestOneKeyServesAllAttemptsOfACaller(t *testing.T) {
	inBubble(t, func(w *world) {
		c := w.client(requestreply.ClientConfig{})
		var keys []string
		_, stop, _ := w.serve(func(ctx context.Context, _ string) (string, error) {
			keys = append(keys, requestreply.IdempotencyKey(ctx))
			return "", nil
		})
		defer stop()
		ctx := requestreply.WithIdempotencyKey(context.Background(), "order-7")
		for _, ctx := range []context.Context{ctx, ctx, context.Background(), context.Background()} {
			_, err := c.Call(ctx, "")
			require.NoError(t, err)
		}
		require.Equal(t, []string{"order-7", "order-7"}, keys[:2])
		require.NotEqual(t, keys[2], keys[3])
		require.NotEmpty(t, keys[2])
		require.Empty(t, requestreply.IdempotencyKey(ctx), "the caller's key is for the server")
	})
}

// withContext makes a publisher refuse, as a Bus does, once the context is done.
func TestAnUndecodableReplyWasExecuted(t *testing.T) {
	inBubble(t, func(w *world) {
		c, err := requestreply.NewClient[string, int](context.Background(), w.bus, requestreply.ClientConfig{Topic: "echo"})
		require.NoError(t, err)
		_, stop, _ := w.serve(upper)
		defer stop()
		_, err = c.Call(context.Background(), "x")
		require.ErrorContains(t, err, "was executed")
		require.NotErrorIs(t, err, pubsub.ErrInDoubt)
		require.True(t, err.(interface{ Permanent() bool }).Permanent())
	})
}

type probe struct {
	n     int
	err   error
	asked []string
}

func (p *probe) Responders(_ context.Context, topic, group string) (int, error) {
	p.asked = append(p.asked, topic+"/"+group)
	return p.n, p.err
}

func TestNoRespondersFailAtOnce(t *testing.T) {
	inBubble(t, func(w *world) {
		var p probe
		c := w.client(requestreply.ClientConfig{}, requestreply.WithProbe(&p, "servers"))
		_, err := c.Call(context.Background(), "")
		require.ErrorIs(t, err, requestreply.ErrNoResponders)
		require.NotErrorIs(t, err, pubsub.ErrInDoubt)
		require.Equal(t, []string{"echo/servers"}, p.asked)
		require.Zero(t, w.driver.Stats().Published, "nothing was sent")

		_, stop, _ := w.serve(upper)
		defer stop()
		for _, p.n = range []int{1, 0} {
			p.err = errors.New("cannot tell")
			_, err = c.Call(context.Background(), "")
			require.NoError(t, err)
		}
	})
}

func TestABrokerInMemoryKnowsItsResponders(t *testing.T) {
	inBubble(t, func(w *world) {
		c := w.client(requestreply.ClientConfig{}, requestreply.WithProbe(w.driver, "servers"))
		_, err := c.Call(context.Background(), "")
		require.ErrorIs(t, err, requestreply.ErrNoResponders)
		_, stop, _ := w.serve(upper)
		_, err = c.Call(context.Background(), "")
		require.NoError(t, err)
		stop()
		_, err = c.Call(context.Background(), "")
		require.ErrorIs(t, err, requestreply.ErrNoResponders)
	})
}

func TestAPublishInDoubtIsACallInDoubt(t *testing.T) {
	inBubble(t, func(w *world) {
		for _, cause := range []error{pubsub.ErrInDoubt, errors.New("refused")} {
			out := outbox{err: func(pubsub.Message) error {
				return &pubsub.PublishError{Failed: []pubsub.Failure{{Err: cause}}, Total: 1}
			}}
			c := w.client(requestreply.ClientConfig{}, requestreply.WithPublisher(&out))
			_, err := c.Call(context.Background(), "")
			require.ErrorIs(t, err, cause)
			require.Equal(t, cause == pubsub.ErrInDoubt, errors.Is(err, pubsub.ErrInDoubt))
			require.Equal(t, cause == pubsub.ErrInDoubt, c.Stats().InDoubt == 1)
		}
	})
}

func TestOtherCodecs(t *testing.T) {
	inBubble(t, func(w *world) {
		text := pubsub.Codec[string]{
			ContentType: "text/plain",
			Encode:      func(s string) ([]byte, error) { return []byte(s), nil },
			Decode: func(b []byte) (string, error) {
				if !utf8.Valid(b) {
					return "", errors.New("not text")
				}
				return string(b), nil
			},
		}
		c := w.client(requestreply.ClientConfig{}, requestreply.WithCodecs(text, text))
		_, stop, _ := w.serve(upper, requestreply.WithCodecs(text, text))
		defer stop()
		got, err := c.Call(context.Background(), "not JSON")
		require.NoError(t, err)
		require.Equal(t, "NOT JSON", got)
		require.Panics(t, func() {
			requestreply.NewServer(w.bus, requestreply.ServerConfig{}, func(context.Context, int) (string, error) { return "", nil }, requestreply.WithCodecs(text, text))
		})
	})
}

func TestConfig(t *testing.T) {
	for _, ok := range []requestreply.ClientConfig{
		{Topic: "a.b"}, {Topic: "a", ReplyTopic: "a.reply.node-1"}, {Topic: "a", Timeout: -1, MaxCalls: -1, ReplyGroup: "g"},
	} {
		require.NoError(t, ok.Validate())
	}
	for _, bad := range []requestreply.ClientConfig{
		{}, {Topic: "a b"}, {Topic: "a", ReplyTopic: "b"}, {Topic: "a", ReplyTopic: "a.replies"}, {Topic: "a", ReplyTopic: "a.reply..x"},
		{Topic: strings.Repeat("a", 249)},
	} {
		require.Error(t, bad.Validate(), "%+v", bad)
		_, err := requestreply.NewClient[int, int](t.Context(), pubsub.New(mempubsub.New(mempubsub.Config{})), bad)
		require.Error(t, err)
	}
	var cfg requestreply.ClientConfig
	require.NoError(t, cfg.UnmarshalJSON([]byte(`{"topic":"a","timeout":"off"}`)))
	inBubble(t, func(w *world) {
		want := requestreply.ClientConfig{Name: "a", Topic: "a", ReplyTopic: "a.reply", Timeout: -1, MaxCalls: 4096}
		c := w.client(cfg)
		require.Equal(t, want, c.Config())
		kind, name, config := c.Describe()
		require.Equal(t, []any{"requestreply.client", "a", any(want)}, []any{kind, name, config})
		n := 0
		for range c.Metrics() {
			n++
		}
		require.Equal(t, 8, n)
	})
}

package requestreply_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/requestreply"
)

func TestTheDeadlineReachesTheFunction(t *testing.T) {
	inBubble(t, func(w *world) {
		c := w.client(requestreply.ClientConfig{Timeout: 10 * time.Second})
		deadlines := make(chan time.Duration, 2)
		_, stop, _ := w.serve(func(ctx context.Context, s string) (string, error) {
			deadline, ok := ctx.Deadline()
			require.True(t, ok)
			deadlines <- time.Until(deadline)
			return "", nil
		})
		defer stop()
		_, err := c.Call(context.Background(), "")
		require.NoError(t, err)
		require.Equal(t, 10*time.Second, <-deadlines)
		ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Microsecond)
		defer cancel()
		_, err = c.Call(ctx, "")
		require.NoError(t, err)
		require.Equal(t, 2*time.Millisecond, <-deadlines, "rounded up")
	})
}

func TestALateRequestIsNotRun(t *testing.T) {
	inBubble(t, func(w *world) {
		_, stop, _ := w.serve(upper)
		stop() // the group exists and nobody serves it
		c := w.client(requestreply.ClientConfig{Timeout: time.Second})
		_, err := c.Call(context.Background(), "late")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, pubsub.ErrInDoubt)
		server, stop, _ := w.serve(func(context.Context, string) (string, error) {
			t.Error("a request past its deadline was run")
			return "", nil
		})
		defer stop()
		synctest.Wait()
		require.Equal(t, requestreply.ServerStats{Expired: 1}, server.Stats())
		require.Equal(t, int64(1), c.Stats().LateReplies)
	})
}

func request(timeout string, skew time.Duration) pubsub.Message {
	return pubsub.Message{ID: "1", Topic: "echo", Payload: []byte(`"x"`), Time: time.Now().Add(skew), Header: pubsub.Header{
		requestreply.HeaderReplyTo: "echo.reply", requestreply.HeaderCorrelation: "1", requestreply.HeaderTimeout: timeout,
	}}
}

type outbox struct {
	msgs []pubsub.Message
	err  func(pubsub.Message) error
}

func (o *outbox) Publish(_ context.Context, msgs ...pubsub.Message) error {
	o.msgs = append(o.msgs, msgs...)
	if o.err != nil {
		return o.err(msgs[0])
	}
	return nil
}

func TestClockSkewNeverLengthensADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			skew, tolerated, left time.Duration // left is negative for a request that is not run
		}{
			{0, -1, 10 * time.Second},
			{-3 * time.Second, -1, 7 * time.Second},           // three seconds in queues, or a clock that is behind
			{-3 * time.Second, 0, 8 * time.Second},            // of which the default tolerates one
			{-3 * time.Second, time.Minute, 10 * time.Second}, // or all, but never for longer than the caller waits
			{time.Hour, 0, 10 * time.Second},                  // the caller's clock is ahead
			{-10 * time.Second, -1, -1}, {-time.Hour, 0, -1},  // past
			{-10 * time.Second, time.Second, 1 * time.Second},     // perhaps past
			{-11 * time.Second, 1001 * time.Millisecond, 1e6 * 1}, // still perhaps
		} {
			var out outbox
			left := time.Duration(-1)
			s := requestreply.NewServer(&out, requestreply.ServerConfig{MaxClockSkew: c.tolerated}, func(ctx context.Context, _ string) (string, error) {
				deadline, _ := ctx.Deadline()
				left = time.Until(deadline)
				return "", nil
			})
			require.NoError(t, s.Handle(context.Background(), request("10000", c.skew)))
			require.Equal(t, c.left, left, "%+v", c)
			if c.left < 0 {
				require.Equal(t, requestreply.CodeExpired, out.msgs[0].Header[requestreply.HeaderErrorCode])
				require.Equal(t, "true", out.msgs[0].Header[requestreply.HeaderErrorNotExecuted])
			}
		}
	})
}

func TestATimeoutThatIsNoNumberIsNone(t *testing.T) {
	var out outbox
	s := requestreply.NewServer(&out, requestreply.ServerConfig{}, func(ctx context.Context, _ string) (string, error) {
		_, limited := ctx.Deadline()
		return fmt.Sprint(limited), nil
	})
	for _, timeout := range []string{"", "x", "-5", "1.5", "99999999999999999999"} {
		require.NoError(t, s.Handle(t.Context(), request(timeout, 0)))
	}
	require.NoError(t, s.Handle(t.Context(), request("9223372036854775807", 0)), "must not overflow")
	for i, m := range out.msgs {
		require.Equal(t, fmt.Sprintf("%q", fmt.Sprint(i == 5)), string(m.Payload))
	}
}

type overloaded struct{}

func (overloaded) Error() string             { return "bulkhead\nfull" }
func (overloaded) Rejected() bool            { return true }
func (overloaded) RetryAfter() time.Duration { return 1500 * time.Millisecond }
func (overloaded) Code() string              { return "overloaded" }

func TestTheErrorOfTheServerComesBack(t *testing.T) {
	inBubble(t, func(w *world) {
		c := w.client(requestreply.ClientConfig{})
		var next error
		var seen atomic.Pointer[error]
		_, stop, _ := w.serve(func(context.Context, string) (string, error) {
			if next == nil {
				panic("secret")
			}
			return "ignored", next
		}, requestreply.OnError(func(_ context.Context, _ pubsub.Message, err error) { seen.Store(&err) }))
		defer stop()
		for _, tc := range []struct {
			err  error
			want requestreply.RemoteError
		}{
			{errors.New("no stock"), requestreply.RemoteError{Code: "error", Text: "no stock"}},
			{overloaded{}, requestreply.RemoteError{Code: "overloaded", Text: "bulkhead full", NotExecuted: true, After: 1500 * time.Millisecond}},
			{fmt.Errorf("price: %w", overloaded{}), requestreply.RemoteError{Code: "error", Text: "price: bulkhead full"}},
			{pubsub.DeadLetter(errors.New("never")), requestreply.RemoteError{Code: "error", Text: "never", Final: true}},
			{pubsub.RetryAfter(time.Minute, errors.New("later")), requestreply.RemoteError{Code: "error", Text: "later", After: time.Minute}},
			{&requestreply.RemoteError{Code: "sku.unknown", Text: "no such SKU", Final: true}, requestreply.RemoteError{Code: "sku.unknown", Text: "no such SKU", Final: true}},
			{&requestreply.RemoteError{Code: "bad code\n"}, requestreply.RemoteError{Code: "error"}},
			{&requestreply.RemoteError{Code: strings.Repeat("c", 65)}, requestreply.RemoteError{Code: "error"}},
			{errors.New(strings.Repeat("é", 2000) + "\xff"), requestreply.RemoteError{Code: "error", Text: strings.Repeat("é", 512)}},
			{errors.New("x" + strings.Repeat("é", 2000)), requestreply.RemoteError{Code: "error", Text: "x" + strings.Repeat("é", 511)}},
			{nil, requestreply.RemoteError{Code: "panic", Text: "panic"}},
		} {
			next = tc.err
			got, err := c.Call(context.Background(), "")
			require.Empty(t, got)
			var remote *requestreply.RemoteError
			require.ErrorAs(t, err, &remote)
			require.Equal(t, tc.want, *remote)
			require.Equal(t, tc.want.Final, err.(interface{ Permanent() bool }).Permanent())
			require.Equal(t, tc.want.After, err.(interface{ RetryAfter() time.Duration }).RetryAfter())
			_, rejected := err.(interface{ Rejected() bool })
			require.False(t, rejected, "a rejection over there is a failure here")
			require.NotErrorIs(t, err, pubsub.ErrInDoubt)
			if tc.err != nil {
				require.Equal(t, tc.err, *seen.Load(), "OnError gets the error itself")
			}
		}
		require.ErrorContains(t, *seen.Load(), "panic: secret\ngoroutine ")
		require.Equal(t, int64(11), c.Stats().RemoteErrors)
	})
}

func TestARunThatADrainCutsShortIsRunAgain(t *testing.T) {
	inBubble(t, func(w *world) {
		c := w.client(requestreply.ClientConfig{Timeout: time.Hour})
		_, stop, _ := w.serve(func(ctx context.Context, _ string) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		})
		in(time.Second, stop) // which takes a minute
		got := make(chan string)
		go func() {
			s, _ := c.Call(context.Background(), "x")
			got <- s
		}()
		<-time.After(10 * time.Second)
		_, stop2, _ := w.serve(upper)
		defer stop2()
		require.Equal(t, "X", <-got)
		<-time.After(time.Minute)
	})
}

func TestWhatIsNoRequestBecomesADeadLetter(t *testing.T) {
	for _, change := range []func(pubsub.Header){
		func(h pubsub.Header) { delete(h, requestreply.HeaderCorrelation) },
		func(h pubsub.Header) { delete(h, requestreply.HeaderReplyTo) },
		func(h pubsub.Header) { h[requestreply.HeaderReplyTo] = "orders.placed" }, // a topic that is not for replies
		func(h pubsub.Header) { h[requestreply.HeaderReplyTo] = "echo.replyx" },
		func(h pubsub.Header) { h[requestreply.HeaderReplyTo] = "echo.reply." },
		func(h pubsub.Header) { h[requestreply.HeaderReplyTo] = "echo.reply.*" },
	} {
		var out outbox
		s := requestreply.NewServer(&out, requestreply.ServerConfig{}, upper)
		m := request("1000", 0)
		change(m.Header)
		err := s.Handle(t.Context(), m)
		require.Error(t, err)
		require.True(t, err.(interface{ Permanent() bool }).Permanent())
		require.Empty(t, out.msgs)
		require.Equal(t, requestreply.ServerStats{Undecodable: 1}, s.Stats())
	}
}

func TestAnUndecodableRequestIsAnsweredAndAcknowledged(t *testing.T) {
	var out outbox
	s := requestreply.NewServer(&out, requestreply.ServerConfig{}, upper)
	m := request("1000", 0)
	m.Payload = []byte("{")
	require.NoError(t, s.Handle(t.Context(), m))
	h := out.msgs[0].Header
	require.Equal(t, "undecodable", h[requestreply.HeaderErrorCode])
	require.Equal(t, "true", h[requestreply.HeaderErrorPermanent])
	require.Equal(t, "true", h[requestreply.HeaderErrorNotExecuted])
	require.Equal(t, "1", h[requestreply.HeaderCorrelation])
	require.Equal(t, "echo.reply", out.msgs[0].Topic)
	require.Equal(t, requestreply.ServerStats{Undecodable: 1}, s.Stats())
}

func TestAFunctionThatUsesUpItsHandleTimeoutIsAnsweredFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := outbox{}
		s := requestreply.NewServer(withContext(&out), requestreply.ServerConfig{}, func(ctx context.Context, _ string) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.NoError(t, s.Handle(ctx, request("60000", 0)), "or it would be run again")
		require.Equal(t, "error", out.msgs[0].Header[requestreply.HeaderErrorCode])
	})
}

func withContext(p pubsub.Publisher) pubsub.Publisher { return obedient{p} }

type obedient struct{ pubsub.Publisher }

func (o obedient) Publish(ctx context.Context, msgs ...pubsub.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return o.Publisher.Publish(ctx, msgs...)
}

func TestACodeThatIsNoneIsNotSent(t *testing.T) {
	var out outbox
	s := requestreply.NewServer(&out, requestreply.ServerConfig{}, func(context.Context, string) (string, error) {
		return "", &requestreply.RemoteError{Code: "two words", Text: "two\nlines"}
	})
	require.NoError(t, s.Handle(t.Context(), request("1000", 0)))
	require.Equal(t, "error", out.msgs[0].Header[requestreply.HeaderErrorCode])
	require.Equal(t, "two lines", out.msgs[0].Header[requestreply.HeaderErrorText])
}

func TestAReplyThatCannotBeSent(t *testing.T) {
	out := outbox{err: func(m pubsub.Message) error {
		if _, failed := m.Header[requestreply.HeaderErrorCode]; failed {
			return nil
		}
		return pubsub.DeadLetter(errors.New("payload too large")) // permanent
	}}
	s := requestreply.NewServer(&out, requestreply.ServerConfig{}, upper)
	require.NoError(t, s.Handle(t.Context(), request("1000", 0)))
	require.Equal(t, "unsendable", out.msgs[1].Header[requestreply.HeaderErrorCode], "for good: the caller is told")
	require.Empty(t, out.msgs[1].Header[requestreply.HeaderErrorNotExecuted], "it was executed")

	out.err = func(pubsub.Message) error { return errors.New("broker away") }
	err := s.Handle(t.Context(), request("1000", 0))
	require.ErrorContains(t, err, "broker away", "for now: the request is run again")
	require.Len(t, out.msgs, 3)
	require.Equal(t, requestreply.ServerStats{Executed: 2, Unanswered: 1}, s.Stats())
}

package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/console"
	"github.com/backstay-go/backstay/fallback"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

// A bankClient is the bank as payments sees it. Each call goes through the policies in their canonical order: what cannot
// be settled now is deferred (fallback), after a bounded time (timeout) and some attempts (retry), which stop as soon as
// the bank is known to be down (breaker), take a bounded share of this process (bulkhead), and are each bounded as well.
// A lost reply does no harm: the key of a charge, void or refund is the same on every repeat.
type bankClient struct {
	peer     *peer
	fallback *fallback.Fallback
	retry    *retry.Retrier
	breaker  *breaker.Breaker
	objects  []console.Object // that there are to look at
}

func newBankClient(base string, client *http.Client) *bankClient {
	b := &bankClient{
		fallback: fallback.New(fallback.Config{Name: "bank"}),
		retry: retry.New(retry.Config{
			Name: "bank", MaxAttempts: 4, InitialInterval: 50 * time.Millisecond, MaxRetryAfter: 2 * time.Second,
		}),
		breaker: breaker.New(breaker.Config{
			Name: "bank", ConsecutiveFailures: 5, OpenDelay: 250 * time.Millisecond, Probes: 1,
		}),
	}
	whole := timeout.New(timeout.Config{Name: "bank", After: 3 * time.Second})
	bound := bulkhead.New(bulkhead.Config{Name: "bank", MaxConcurrent: 32, MaxQueue: 256})
	attempt := timeout.New(timeout.Config{Name: "bank attempt", After: 500 * time.Millisecond})
	b.peer = newPeer("bank", base, client, whole, b.retry, b.breaker, bound, attempt)
	b.objects = []console.Object{b.fallback, whole, b.retry, b.breaker, bound, attempt}
	b.peer.send = fallback.Wrap(b.fallback, b.peer.send, deferred)
	return b
}

// outcome is how the bank answers, and how the fallback answers for it.
type outcome struct {
	Outcome string `json:"outcome"`
}

// deferred is the answer in place of a bank that did not give one.
func deferred(context.Context, call, error) (answer, error) {
	return answer{code: http.StatusAccepted, body: []byte(`{"outcome":"deferred"}`)}, nil
}

// charge says whether the order is "charged", "declined" or "voided". Its error says to try again later.
func (b *bankClient) charge(ctx context.Context, orderID string, pence int) (string, error) {
	said, err := b.ask(ctx, http.MethodPut, "/charges/"+orderID, refund{orderID, pence})
	if no, ok := errors.AsType[*refusal](err); ok {
		switch no.Code {
		case http.StatusPaymentRequired:
			return "declined", nil
		case http.StatusConflict:
			return "voided", nil
		}
	}
	return said, err
}

// void undoes the charge of an order, or prevents it.
func (b *bankClient) void(ctx context.Context, orderID string) error {
	_, err := b.ask(ctx, http.MethodPost, "/charges/"+orderID+"/void", nil)
	return err
}

// refund gives back a part of the charge of an order.
func (b *bankClient) refund(ctx context.Context, id, orderID string, pence int) error {
	_, err := b.ask(ctx, http.MethodPut, "/refunds/"+id, bankRefund{refund{orderID, pence}, orderID})
	return err
}

type bankRefund struct {
	refund
	ChargeKey string `json:"charge_key"`
}

func (b *bankClient) ask(ctx context.Context, method, path string, body any) (string, error) {
	var said outcome
	if err := b.peer.call(ctx, method, path, body, &said); err != nil {
		return "", err
	}
	if said.Outcome == "deferred" {
		return "", &refusal{Code: http.StatusServiceUnavailable, Reason: "the bank cannot be reached, the payment is deferred", Wait: retryLater}
	}
	return said.Outcome, nil
}

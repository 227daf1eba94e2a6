package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// withBus works on a broker in this process that keeps its messages in dir.
func withBus(ctx context.Context, dir string, work func(context.Context, *pubsub.Bus) error) (err error) {
	server, err := natsembed.Start(natsembed.Config{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	conn, err := server.Connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	driver, err := natspubsub.New(ctx, conn, natspubsub.Config{})
	if err != nil {
		return err
	}
	bus := pubsub.New(driver)
	return errors.Join(work(ctx, bus), bus.Close())
}

// consume runs billing and mail round act until each has handled as many orders as it should, and ready says so.
func (s *story) consume(ctx context.Context, bus *pubsub.Bus, want map[string]int, ready func(billing, mail *pubsub.Consumer) bool, act func() error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	billing, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders", Group: "billing", MaxAttempts: 3, BackoffInitial: 10 * time.Millisecond})
	if err != nil {
		return err
	}
	mail, err := bus.Open(ctx, pubsub.Subscription{Topic: "orders", Group: "mail"})
	if err != nil {
		return err
	}
	var consumers sync.WaitGroup
	failed := make(chan error, 2)
	consumers.Go(func() { failed <- billing.Run(ctx, s.bill) })
	consumers.Go(func() { failed <- mail.Run(ctx, s.handled("mail")) })
	err = act()
	for err == nil && (!s.has(want) || !ready(billing, mail)) {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			err = fmt.Errorf("billing and mail are not done: %w", ctx.Err())
		}
	}
	stop()
	consumers.Wait()
	return errors.Join(err, <-failed, <-failed)
}

func (s *story) has(want map[string]int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.done["billing"]) >= want["billing"] && len(s.done["mail"]) >= want["mail"]
}

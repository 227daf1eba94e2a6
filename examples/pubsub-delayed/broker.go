package main

import (
	"context"
	"errors"

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

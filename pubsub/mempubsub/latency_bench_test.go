package mempubsub_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

// BenchmarkDriver is publish, receive and acknowledge in batches of 100, without the portable type.
func BenchmarkDriver(b *testing.B) {
	d := mempubsub.New(mempubsub.Config{})
	r, err := d.Open(b.Context(), pubsub.Subscription{Topic: "t", Group: "g", Lease: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	batch := make([]pubsub.Message, 100)
	for i := range batch {
		batch[i] = pubsub.Message{ID: "id", Topic: "t"}
	}
	verdicts := make([]pubsub.Verdict, 0, len(batch))
	b.ReportAllocs()
	for b.Loop() {
		if errs := d.Publish(b.Context(), batch); errs != nil {
			b.Fatal(errs)
		}
		got, err := r.Receive(b.Context(), len(batch))
		if err != nil || len(got) != len(batch) {
			b.Fatal(len(got), err)
		}
		verdicts = verdicts[:0]
		for i := range got {
			verdicts = append(verdicts, pubsub.Verdict{Token: got[i].Token, Kind: pubsub.Ack})
		}
		if err := r.Settle(b.Context(), verdicts); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/msg")
	_ = d.Close()
}

// BenchmarkLowLoad is the time from a publish to its handler while nothing else is under way, beside that of a bare
// channel and that to the return of the driver's Receive. They take turns, so that they meet the same machine.
func BenchmarkLowLoad(b *testing.B) {
	arrived := make(chan time.Time, 1)
	contenders := []struct {
		name  string
		start func(*testing.B, chan<- time.Time) (publish, stop func())
	}{
		{"channel", startChannel}, {"driver", startDriver}, {"handler", startHandler},
	}
	const quiet = 50 * time.Microsecond // for everybody to go back to sleep
	took := make([][]time.Duration, len(contenders))
	publish := make([]func(), len(contenders))
	for i, c := range contenders {
		var stop func()
		publish[i], stop = c.start(b, arrived)
		defer stop()
	}
	for b.Loop() {
		for i := range contenders {
			time.Sleep(quiet)
			begun := time.Now()
			publish[i]()
			took[i] = append(took[i], (<-arrived).Sub(begun))
		}
	}
	b.ReportMetric(0, "ns/op") // the pauses
	for i, c := range contenders {
		report(b, c.name, took[i])
	}
}

func startChannel(_ *testing.B, arrived chan<- time.Time) (publish, stop func()) {
	bare := make(chan int, 1)
	go func() {
		for range bare {
			arrived <- time.Now()
		}
	}()
	return func() { bare <- 1 }, func() { close(bare) }
}

func startDriver(b *testing.B, arrived chan<- time.Time) (publish, stop func()) {
	d := mempubsub.New(mempubsub.Config{})
	r, err := d.Open(b.Context(), pubsub.Subscription{Topic: "t", Group: "g", Lease: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		for {
			got, err := r.Receive(context.Background(), 1)
			if err != nil {
				return
			}
			arrived <- time.Now()
			_ = r.Settle(context.Background(), []pubsub.Verdict{{Token: got[0].Token, Kind: pubsub.Ack}})
		}
	}()
	msgs := []pubsub.Message{{ID: "id", Topic: "t"}}
	return func() { d.Publish(context.Background(), msgs) }, func() { _ = d.Close() }
}

func startHandler(b *testing.B, arrived chan<- time.Time) (publish, stop func()) {
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	c, err := bus.Open(b.Context(), pubsub.Subscription{Topic: "t", Group: "g"})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error)
	go func() {
		done <- c.Run(context.Background(), func(context.Context, pubsub.Message) error {
			arrived <- time.Now()
			return nil
		})
	}()
	return func() {
			if err := bus.Publish(context.Background(), pubsub.Message{ID: "id", Topic: "t"}); err != nil {
				b.Error(err)
			}
		}, func() {
			_ = bus.Close()
			if err := <-done; err != nil {
				b.Error(err)
			}
		}
}

func report(b *testing.B, name string, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2]), name+"-p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100]), name+"-p99-ns")
}

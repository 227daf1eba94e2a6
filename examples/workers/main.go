// Workers has competing consumers in processes of their own, of which one is killed about every second, and shows that no job is
// lost: the broker gives what a dead worker held to another one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

func main() {
	var p plan
	worker := flag.String("worker", "", "be a worker on the broker at this `URL`")
	flag.IntVar(&p.jobs, "jobs", 3000, "number of jobs")
	flag.IntVar(&p.workers, "workers", 3, "number of workers")
	flag.DurationVar(&p.every, "every", time.Second, "time from one kill to the next, on average")
	flag.DurationVar(&p.patience, "patience", time.Minute, "how long to wait for jobs before they count as lost")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	var err error
	if *worker != "" {
		err = work(ctx, *worker, os.Stdin, os.Stdout)
	} else {
		err = run(ctx, p, os.Stdout)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// jobs is the subscription of all workers. The lease is short, so that the jobs of a dead worker do not wait for long.
var jobs = pubsub.Subscription{Topic: "jobs", Group: "workers", Concurrency: 4, Lease: 2 * time.Second}

// work handles jobs until in ends, which it does with the parent. A line on out is what a job does: once it is
// written, the job has been done, whether or not the broker hears of it.
func work(ctx context.Context, url string, in io.Reader, out io.Writer) (err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, in)
		stop()
	}()
	driver, err := natspubsub.Open(ctx, url, natspubsub.Config{})
	if err != nil {
		return err
	}
	bus := pubsub.New(driver)
	defer func() { err = errors.Join(err, bus.Close()) }()
	c, err := bus.Open(ctx, jobs)
	if err != nil {
		return err
	}
	return c.Run(ctx, func(_ context.Context, m pubsub.Message) error {
		time.Sleep(10 * time.Millisecond) // the work
		_, err := fmt.Fprintln(out, m.ID, m.Attempt)
		return err
	})
}

// publish sends the jobs, numbered, a hundred at a time.
func publish(ctx context.Context, bus *pubsub.Bus, n int) error {
	for first := 0; first < n; first += 100 {
		var msgs []pubsub.Message
		for i := first; i < min(first+100, n); i++ {
			msgs = append(msgs, pubsub.Message{ID: strconv.Itoa(i), Topic: jobs.Topic})
		}
		if err := bus.Publish(ctx, msgs...); err != nil {
			return err
		}
	}
	return nil
}

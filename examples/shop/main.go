// Command shop is a whole system in one process, or with -processes in many: a gateway, four services with a database each, a broker, a read model,
// and a bank that misbehaves. It places orders, breaks things on a seeded schedule, and proves from the databases that
// nothing was lost and nothing happened twice. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == roleFlag {
		os.Exit(beProcess(os.Stdin, os.Stdout, os.Stderr))
	}
	ctx, stop := interruptible(os.Stderr)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// interruptible is a context that the first interrupt ends; the second ends the process.
func interruptible(stderr io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
			return
		}
		say(stderr, "\nInterrupted: finishing what is under way, for at most %v after the last answer. Interrupt again to leave at once.", lastPatience)
		<-signals
		say(stderr, "\nInterrupted again: leaving at once. Start again with -data on the same folder to go on.")
		os.Exit(1)
	}()
	return ctx, cancel
}

// say writes a line for a person; one that cannot be written is no reason to stop.
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }

// settings are the command line.
type settings struct {
	orders int
	rate   float64
	seed   uint64
	replay string
	chaos  bool
	data   string
	broker string
	db     string
	// temporary: the data goes with the run
	temporary bool
	json      bool
	serve     bool
	addr      string

	processes bool
	instances int // of each service, with processes
	cluster   int // nodes of the broker; 0: it is no cluster
	// events is the prefix of what is the shop's at the broker; "": it follows from the data folder. replicas: how often
	// NATS keeps each; 0: once.
	events   string
	replicas int
}

// A usageError is the caller's to mend; it says how.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func parse(args []string, stderr io.Writer) (settings, error) {
	var cfg settings
	flags := flag.NewFlagSet("shop", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&cfg.orders, "orders", 200, "how many orders are placed; with -serve 20000 unless given")
	flags.Float64Var(&cfg.rate, "rate", 100, "how many requests are placed per second; with -serve 20 unless given")
	flags.Uint64Var(&cfg.seed, "seed", 1, "the seed of orders and faults")
	flags.StringVar(&cfg.replay, "replay", "", "place the orders of this `file`: invoices as CSV, plain or gzip")
	flags.BoolVar(&cfg.chaos, "chaos", true, "break things")
	flags.StringVar(&cfg.data, "data", "", "keep the data in this `folder`, and go on with what is in it; default: a temporary one")
	flags.StringVar(&cfg.broker, "broker", "", "the `URL` of the broker: mem:, nats://…, amqp://…, redis://…; default: JetStream inside the shop")
	flags.StringVar(&cfg.db, "db", "", "the `URL` of a PostgreSQL server, postgres://…: a database for each service there; default: SQLite files")
	flags.BoolVar(&cfg.json, "json", false, "print one JSON object instead of the report")
	flags.BoolVar(&cfg.serve, "serve", false, "stay open until interrupted, for requests from outside and for those who look at the console")
	flags.StringVar(&cfg.addr, "addr", "127.0.0.1:8080", "the `address` of the gateway, with -serve")
	flags.BoolVar(&cfg.processes, "processes", false, "run each service in processes of its own, of which some are killed again and again, unless -chaos=false; 600 orders at a rate of 20 unless given")
	flags.IntVar(&cfg.instances, "instances", 2, "how many processes each service has, with -processes")
	flags.IntVar(&cfg.cluster, "nats-cluster", 0, "how many nodes JetStream has, 3 or 0 for a single one, with -processes")
	flags.Usage = func() {
		say(stderr, "Usage: shop [flags]\n\nRuns a shop under faults and proves its result. Exit status: 0 all invariants hold, 1 not, 2 wrong usage.\n\nFlags:")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return cfg, err
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if cfg.serve && !given["orders"] && cfg.replay == "" {
		cfg.orders = 20_000 // so that there is something to see for a while
	}
	if cfg.serve && !given["rate"] {
		cfg.rate = 20
	}
	if cfg.processes && !given["orders"] && cfg.replay == "" {
		cfg.orders = 600
	}
	if cfg.processes && !given["rate"] {
		cfg.rate = 20 // what two cores bear
	}
	if err := checkProcesses(cfg, given); err != nil {
		return cfg, err
	}
	switch {
	case flags.NArg() > 0:
		return cfg, fmt.Errorf("unexpected argument %q: there are only flags", flags.Arg(0))
	case cfg.orders < 0 || cfg.orders == 0 && !cfg.serve:
		return cfg, fmt.Errorf("-orders is %d: it must be at least 1, or 0 with -serve", cfg.orders)
	case !(cfg.rate > 0) || math.IsInf(cfg.rate, 0):
		return cfg, fmt.Errorf("-rate is %v: it must be above 0", cfg.rate)
	case given["addr"] && !cfg.serve:
		return cfg, errors.New("-addr is only for -serve: without it the gateway takes a free port")
	}
	if given["broker"] {
		if err := checkBroker(cfg.broker, cfg.data); err != nil {
			return cfg, err
		}
	}
	if given["db"] {
		if err := checkPostgres(cfg.db); err != nil {
			return cfg, err
		}
	}
	if !cfg.serve {
		cfg.addr = anyPort
	}
	return cfg, nil
}

// load is what the customers will do.
func load(cfg settings) (assortment, string, error) {
	faults := ", with faults"
	if !cfg.chaos {
		faults = ", without faults"
	}
	if cfg.replay == "" {
		return generate(cfg.seed, cfg.orders), fmt.Sprintf("%s orders generated from seed %d%s", grouped(cfg.orders), cfg.seed, faults), nil
	}
	goods, err := readReplay(cfg.replay, cfg.orders)
	if err != nil {
		err = usageError{fmt.Errorf("%w: -replay needs a file of invoices as README.md describes it", err)}
	}
	return goods, fmt.Sprintf("up to %s orders of %s, seed %d%s", grouped(cfg.orders), cfg.replay, cfg.seed, faults), err
}

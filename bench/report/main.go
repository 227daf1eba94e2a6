// Report runs the benchmarks and prints a table for each area: every figure beside its ratio to the floor of the same run, then
// what was to be reached, for caches their hit ratios, and which library passes which behavioural case, each in a child process.
//
//	go run ./bench/report [-area AREA] [-rounds N] [-reads N] [-cases=false] [-json FILE] [-out DIR] [-readme FILE]
//	go run ./bench/report -all
//
// With -all it is every area, and what it finds goes where it is shown: docs/AREA-tables.md, docs/AREA.svg, docs/figures.json and
// the short tables in README.md.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/backstay-go/backstay/bench"
	"github.com/backstay-go/backstay/bench/cases"
	"github.com/backstay-go/backstay/bench/cases/caches"
	"github.com/backstay-go/backstay/bench/cases/resilience"
)

// report is everything that one run found.
type report struct {
	Head  string
	Areas []area
}

// area is what was found in one area.
type area struct {
	page
	Rows    []row
	Reached []reached
	Ratios  []bench.Ratio
	Skipped []error
	Cells   []cases.Result
}

// page is what the documentation says about an area in general.
type page struct {
	name, title string
	floors      string
	benchtime   string       // of each case in each round
	suite       *cases.Suite // nil: no behavioural cases
}

func pages() []page {
	return []page{
		{bench.Resilience, "Resilience", "The floor of each piece of work is the same work without a policy.", aMoment, resilience.Suite()},
		{bench.Cache, "Caches", "The floor is a sync.Map for hits, a map behind a mutex for misses, a sync.Once for a stampede, a connection without a " +
			"client library for reads from Redis, and the client library itself for those that it has cached.", aMoment, caches.Suite()},
		{bench.PubSub, "Publish and subscribe", "In memory the floor is a buffered channel that passes a pointer, which nobody acknowledges; on JetStream it is " +
			"the client library alone, sending and reading the same messages with the same headers and durability, and for messages on disk a file " +
			"that is appended to and synced each time; on Redis Streams, RabbitMQ and Kafka it is the client library alone, with the same headers and " +
			"windows and as many messages in an acknowledgement, and the figures of Kafka have the work of kfake in them, which runs in the process. Every clock stops when the last message is acknowledged at the broker.", "200ms", nil},
		{bench.Outbox, "Outbox", "In PostgreSQL and SQLite the floor is raw SQL on the same tables, with the same durability: a transaction that inserts the same rows, in one " +
			"statement however many they are; `DELETE … RETURNING` in batches of 1,000, on PostgreSQL skipping what is locked; and a row with NOTIFY in its " +
			"transaction. On PostgreSQL the transactions that store also change a row of the service's. A drain publishes to a publisher that does nothing, " +
			"with one relay in batches of 1,000, from its start to its stop; watermill's forwarder polls every 5 ms and fetches 100 at a time, its default, " +
			"and River works jobs that do nothing. Other libraries named elsewhere are refused by the module proxy.", "200ms", nil},
		{bench.Saga, "Saga", "In memory the floor encodes the state for each of four changes and keeps it. In PostgreSQL and SQLite it is four durable commits of " +
			"one row, one after the other, by as many clients; until the first step, one commit. PostgreSQL is used through pgx, unless a row says database/sql. No peer that runs without a " +
			"server of its own can be had from the module proxy.", "200ms", nil},
	}
}

// aMoment is enough for operations that are short: the rounds even out what disturbs one of them.
const aMoment = "100ms"

type options struct {
	area                  string
	all                   bool
	rounds, reads         int
	cases                 bool
	jsonFile, out, readme string
}

func main() {
	testing.Init()
	var o options
	flag.StringVar(&o.area, "area", "", "run this area only")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds, of which the median counts; 0: no benchmarks")
	flag.IntVar(&o.reads, "reads", 1_000_000, "reads of each trace for the hit ratios; 0: no hit ratios")
	flag.BoolVar(&o.cases, "cases", true, "put the libraries through the behavioural cases; needs a C compiler for the race detector")
	flag.StringVar(&o.jsonFile, "json", "", "also write the rows as JSON to this file")
	flag.StringVar(&o.out, "out", "", "also write the tables as Markdown and a plot as SVG, a file of each for each area, to this folder")
	flag.StringVar(&o.readme, "readme", "", "also put short tables between the marks in this file")
	flag.BoolVar(&o.all, "all", false, "run every area; -json, -out and -readme are those of this repository unless they are given")
	flag.Parse()
	if flag.NArg() > 0 || o.rounds < 0 || o.reads < 0 || o.all && o.area != "" {
		fmt.Fprintln(os.Stderr, "report: there are no arguments, -rounds and -reads are at least 0, and -area excludes -all; see -help")
		os.Exit(2)
	}
	if o.all {
		o.out, o.readme = cmp.Or(o.out, "docs"), cmp.Or(o.readme, "README.md")
		o.jsonFile = cmp.Or(o.jsonFile, filepath.Join(o.out, "figures.json"))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := errors.Join(run(ctx, os.Stdout, o), bench.Close())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, o options) error {
	wanted := slices.DeleteFunc(pages(), func(p page) bool { return o.area != "" && p.name != o.area })
	if len(wanted) == 0 {
		return fmt.Errorf("there is no area %q", o.area)
	}
	r := report{Head: fmt.Sprintf("%s, %d cores, %s, median of %d rounds", runtime.Version(), runtime.GOMAXPROCS(0), time.Now().Format(time.DateOnly), o.rounds)}
	var failed error
	for _, p := range wanted {
		a, err := find(p, o)
		failed = errors.Join(failed, err)
		r.Areas = append(r.Areas, a)
	}
	if o.cases && slices.ContainsFunc(r.Areas, func(a area) bool { return a.suite != nil }) {
		if err := r.runCases(ctx); err != nil {
			return err
		}
	}
	return errors.Join(r.print(out), r.write(o), failed)
}

// find measures an area. With an error it still has what could be measured.
func find(p page, o options) (a area, err error) {
	a.page = p
	if o.rounds > 0 {
		if err := flag.Set("test.benchtime", p.benchtime); err != nil {
			return a, err
		}
		all := slices.DeleteFunc(bench.Cases(), func(c bench.Case) bool { return c.Area != p.name })
		a.Rows, a.Skipped, err = measure(all, o.rounds)
		a.Reached = compare(a.Rows)
	}
	if p.name == bench.Cache && o.reads > 0 {
		ratios, skipped := bench.Ratios(o.reads, ratioRuns)
		a.Ratios, a.Skipped = ratios, append(a.Skipped, skipped...)
	}
	return a, err
}

// ratioRuns is how often each cache is put through a trace; the mean counts.
const ratioRuns = 5

func (r *report) runCases(ctx context.Context) error {
	binaries, cleanup, err := cases.Build(ctx)
	if err != nil {
		return err
	}
	defer cleanup()
	for i := range r.Areas {
		if r.Areas[i].suite == nil {
			continue
		}
		r.Areas[i].Cells = r.Areas[i].suite.Run(ctx, binaries)
	}
	return nil
}

func (r *report) write(o options) error {
	if o.jsonFile != "" {
		data, err := json.MarshalIndent(r.jsonRows(), "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.jsonFile, append(data, '\n'), 0o644); err != nil {
			return err
		}
	}
	if o.out != "" {
		if err := r.writePages(o.out); err != nil {
			return err
		}
	}
	if o.readme == "" {
		return nil
	}
	return r.showIn(o.readme)
}

// writePages writes a page of tables and a plot for each area.
func (r *report) writePages(folder string) error {
	for _, a := range r.Areas {
		if err := os.WriteFile(filepath.Join(folder, a.name+"-tables.md"), []byte(a.asMarkdown(r.Head)), 0o644); err != nil {
			return err
		}
		if len(a.Rows) == 0 {
			continue
		}
		if err := os.WriteFile(filepath.Join(folder, a.name+".svg"), []byte(a.plot(r.Head)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (r *report) jsonRows() []any {
	rows := []any{}
	for _, a := range r.Areas {
		for _, row := range a.Rows {
			rows = append(rows, row)
		}
		for _, ratio := range a.Ratios {
			rows = append(rows, ratioRow{a.name, ratio.Case, ratio.Subject, ratio.Percent, ratio.Best, ratio.Percent / ratio.Best})
		}
	}
	return rows
}

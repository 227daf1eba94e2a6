// Report runs the benchmarks and prints a table for each area: every figure beside its ratio to the floor of the same run, then
// what was to be reached, and for resilience which library passes which behavioural case, each in a child process.
//
//	go run ./bench/report [-area AREA] [-rounds N] [-cases=false] [-json FILE] [-markdown FILE]
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/backstay-go/backstay/bench"
	"github.com/backstay-go/backstay/bench/cases"
)

// report is everything that one run found.
type report struct {
	Head    string
	Rows    []row
	Reached []reached
	Cells   []cases.Result
}

type options struct {
	area               string
	rounds             int
	cases              bool
	jsonFile, markdown string
}

func main() {
	testing.Init()
	var o options
	flag.StringVar(&o.area, "area", "", "run this area only")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds, of which the median counts; 0: no benchmarks")
	flag.BoolVar(&o.cases, "cases", true, "put the libraries through the behavioural cases; needs a C compiler for the race detector")
	flag.StringVar(&o.jsonFile, "json", "", "also write the rows as JSON to this file")
	flag.StringVar(&o.markdown, "markdown", "", "also write the tables as Markdown to this file")
	flag.Parse()
	if flag.NArg() > 0 || o.rounds < 0 {
		fmt.Fprintln(os.Stderr, "report: there are no arguments, and -rounds is at least 0; see -help")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, o options) error {
	all := slices.DeleteFunc(bench.Cases(), func(c bench.Case) bool { return o.area != "" && c.Area != o.area })
	if len(all) == 0 {
		return fmt.Errorf("there is no area %q", o.area)
	}
	// A tenth of a second a case is enough for operations this short: the rounds even out what disturbs one of them.
	if err := flag.Set("test.benchtime", "100ms"); err != nil {
		return err
	}
	r := report{Head: fmt.Sprintf("%s, %d cores, %s, median of %d rounds", runtime.Version(), runtime.GOMAXPROCS(0), time.Now().Format(time.DateOnly), o.rounds)}
	if o.rounds > 0 {
		r.Rows = measure(all, o.rounds)
		r.Reached = compare(r.Rows)
	}
	if o.cases && (o.area == "" || o.area == bench.Resilience) {
		binary, cleanup, err := cases.Build(ctx)
		if err != nil {
			return err
		}
		defer cleanup()
		r.Cells = cases.Run(ctx, binary)
	}
	if err := r.print(out); err != nil {
		return err
	}
	return r.write(o)
}

func (r *report) write(o options) error {
	if o.jsonFile != "" {
		data, err := json.MarshalIndent(r.Rows, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.jsonFile, append(data, '\n'), 0o644); err != nil {
			return err
		}
	}
	if o.markdown == "" {
		return nil
	}
	return os.WriteFile(o.markdown, []byte(r.asMarkdown()), 0o644)
}

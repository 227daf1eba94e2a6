// Report runs the benchmarks and prints a table for each area, every figure beside its ratio to the floor of the same run.
//
//	go run ./bench/report [-area AREA] [-rounds N] [-json FILE]
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/backstay-go/backstay/bench"
)

// row is one line of the report, and one object in the JSON array.
type row struct {
	Area         string  `json:"area"`
	Case         string  `json:"case"`
	Subject      string  `json:"subject"`
	NsOp         float64 `json:"ns_op"`
	AllocsOp     int64   `json:"allocs_op"`
	Floor        float64 `json:"floor"`
	RatioToFloor float64 `json:"ratio_to_floor"`
}

func main() {
	testing.Init()
	area := flag.String("area", "", "run this area only")
	rounds := flag.Int("rounds", 5, "rounds, of which the median counts")
	file := flag.String("json", "", "also write the rows as JSON to this file")
	flag.Parse()
	if flag.NArg() > 0 || *rounds < 1 {
		fmt.Fprintln(os.Stderr, "report: there are no arguments, and -rounds is at least 1; see -help")
		os.Exit(2)
	}
	// A quarter of a second a case is enough for operations this short, and keeps the report under a minute an area.
	if err := flag.Set("test.benchtime", "250ms"); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	if err := run(os.Stdout, *area, *rounds, *file); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, area string, rounds int, file string) error {
	cases := slices.DeleteFunc(bench.Cases(), func(c bench.Case) bool { return area != "" && c.Area != area })
	if len(cases) == 0 {
		return fmt.Errorf("there is no area %q", area)
	}
	rows := measure(cases, rounds)
	fmt.Fprintf(out, "%s, %d cores, %s, median of %d rounds\n\n", runtime.Version(), runtime.GOMAXPROCS(0), time.Now().Format(time.DateOnly), rounds)
	if err := table(out, rows); err != nil {
		return err
	}
	if file == "" {
		return nil
	}
	data, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o600)
}

// measure goes through all cases in each round, so that a disturbance of the machine touches floors and subjects alike.
func measure(cases []bench.Case, rounds int) []row {
	times := make([][]float64, len(cases))
	allocs := make([]int64, len(cases))
	for range rounds {
		for i, c := range cases {
			result := testing.Benchmark(c.Run)
			times[i] = append(times[i], float64(result.T.Nanoseconds())/float64(result.N))
			allocs[i] = result.AllocsPerOp()
		}
	}
	rows := make([]row, len(cases))
	var floor float64
	for i, c := range cases {
		slices.Sort(times[i])
		median := times[i][len(times[i])/2]
		if c.Subject == bench.Floor {
			floor = median
		}
		rows[i] = row{Area: c.Area, Case: c.Name, Subject: c.Subject, NsOp: median, AllocsOp: allocs[i], Floor: floor, RatioToFloor: median / floor}
	}
	return rows
}

func table(out io.Writer, rows []row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	last := ""
	for _, r := range rows {
		if r.Case != last {
			fmt.Fprintf(w, "%s: %s\tns/op\tallocs\tx floor\n", r.Area, r.Case)
			last = r.Case
		}
		fmt.Fprintf(w, "  %s\t%.1f\t%d\t%.1f\n", r.Subject, r.NsOp, r.AllocsOp, r.RatioToFloor)
	}
	return w.Flush()
}

package main

import (
	"errors"
	"fmt"
	"slices"
	"testing"

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
	LoadsOp      float64 `json:"loads_op,omitempty"` // of stampedes
}

// ratioRow is a hit ratio in the JSON array.
type ratioRow struct {
	Area        string  `json:"area"`
	Case        string  `json:"case"`
	Subject     string  `json:"subject"`
	HitPercent  float64 `json:"hit_percent"`
	BestPercent float64 `json:"best_percent"`
	RatioToBest float64 `json:"ratio_to_best"`
}

// measure goes through all cases in each round, so that a disturbance of the machine touches floors and subjects alike. What cannot
// run here is skipped, with the reason; so is what fails twice in a row, which is an error, too.
func measure(all []bench.Case, rounds int) (rows []row, skipped []error, err error) {
	all, skipped = runnable(all)
	times := make([][]float64, len(all))
	measured := make([]row, len(all))
	broken := make([]error, len(all))
	for range rounds {
		for i, c := range all {
			if broken[i] != nil {
				continue
			}
			result, err := once(c)
			if err != nil {
				broken[i] = err
				continue
			}
			times[i] = append(times[i], nsOp(result))
			measured[i].AllocsOp, measured[i].LoadsOp = result.AllocsPerOp(), result.Extra[bench.LoadsMetric]
		}
	}
	floors := map[string]float64{}
	for i, c := range all {
		if broken[i] != nil {
			continue
		}
		slices.Sort(times[i])
		median := times[i][len(times[i])/2]
		if c.Subject == bench.Floor {
			floors[c.Name] = median
		}
		measured[i].Area, measured[i].Case, measured[i].Subject, measured[i].NsOp = c.Area, c.Name, c.Subject, median
	}
	for _, r := range measured {
		floor, ok := floors[r.Case]
		if !ok {
			continue // without a floor there is nothing to compare with
		}
		r.Floor, r.RatioToFloor = floor, r.NsOp/floor
		rows = append(rows, r)
	}
	broken = slices.DeleteFunc(broken, func(err error) bool { return err == nil })
	return rows, append(skipped, broken...), errors.Join(broken...)
}

// once runs a benchmark, and once more if it fails: those of servers can be disturbed by what else the machine does.
func once(c bench.Case) (testing.BenchmarkResult, error) {
	for range 2 {
		if result := testing.Benchmark(c.Run); result.N > 0 {
			return result, nil
		}
	}
	return testing.BenchmarkResult{}, fmt.Errorf("%s, %s: the benchmark failed twice; see go test -bench in the folder bench", c.Name, c.Subject)
}

// nsOp is the time of an operation, or the quantile that the case reports in its place.
func nsOp(r testing.BenchmarkResult) float64 {
	if ns, ok := r.Extra["ns/op"]; ok {
		return ns
	}
	return float64(r.T.Nanoseconds()) / float64(r.N)
}

func runnable(all []bench.Case) (here []bench.Case, skipped []error) {
	reasons := map[string]bool{}
	for _, c := range all {
		if c.Needs == nil {
			here = append(here, c)
			continue
		}
		err := c.Needs()
		switch {
		case err == nil:
			here = append(here, c)
		case !reasons[c.Name]:
			reasons[c.Name] = true
			skipped = append(skipped, fmt.Errorf("%s: %w", c.Name, err))
		}
	}
	return here, skipped
}

// reached is a target and what became of it.
type reached struct {
	bench.Target
	Measured float64 // in the unit of the target
	Allocs   int64
	Yes      bool
}

// compare looks up both sides of every target among the rows; targets of areas that were not run are left out.
func compare(rows []row) []reached {
	find := func(name, subject string) (row, bool) {
		i := slices.IndexFunc(rows, func(r row) bool { return r.Case == name && r.Subject == subject })
		if i < 0 {
			return row{}, false
		}
		return rows[i], true
	}
	var all []reached
	for _, t := range bench.Targets() {
		subject, one := find(t.Case, t.Subject)
		against, two := find(t.Case, t.Against)
		if one && two {
			all = append(all, judge(t, subject, against))
		}
	}
	return all
}

func judge(t bench.Target, subject, against row) reached {
	r := reached{Target: t, Allocs: subject.AllocsOp}
	limit := t.Ratio
	switch {
	case t.Plus > 0:
		r.Measured, limit = subject.NsOp-against.NsOp, t.Plus
	case t.Added:
		r.Measured = (subject.NsOp - subject.Floor) / (against.NsOp - against.Floor)
	default:
		r.Measured = subject.NsOp / against.NsOp
	}
	r.Yes = r.Measured <= limit && (t.Allocs < 0 || subject.AllocsOp <= t.Allocs)
	return r
}

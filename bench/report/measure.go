package main

import (
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
}

// measure goes through all cases in each round, so that a disturbance of the machine touches floors and subjects alike.
func measure(all []bench.Case, rounds int) []row {
	times := make([][]float64, len(all))
	allocs := make([]int64, len(all))
	for range rounds {
		for i, c := range all {
			result := testing.Benchmark(c.Run)
			times[i] = append(times[i], float64(result.T.Nanoseconds())/float64(result.N))
			allocs[i] = result.AllocsPerOp()
		}
	}
	rows := make([]row, len(all))
	var floor float64
	for i, c := range all {
		slices.Sort(times[i])
		median := times[i][len(times[i])/2]
		if c.Subject == bench.Floor {
			floor = median
		}
		rows[i] = row{Area: c.Area, Case: c.Name, Subject: c.Subject, NsOp: median, AllocsOp: allocs[i], Floor: floor, RatioToFloor: median / floor}
	}
	return rows
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

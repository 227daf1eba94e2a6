package saga

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// stepStats counts the attempts at the functions of the definitions. Which there are is settled by NewRunner, so that counting takes
// no lock and what is exported is bounded.
type stepStats struct {
	by  map[stepKey]*stepCount
	all []*stepCount // in order of their names
}

// stepKey names a function; versions of a definition count together.
type stepKey struct {
	saga, step string
	direction  Direction
}

// stepCount has the names of its metrics ready.
type stepCount struct {
	runs, failures, nanos                 atomic.Int64
	runsName, failuresName, durationsName string
}

func newStepStats(defs map[Ref]definition) stepStats {
	st := stepStats{by: map[stepKey]*stepCount{}}
	for ref, d := range defs {
		for _, p := range d.plan().steps {
			st.add(ref.Name, p.name, p)
			for _, b := range p.branches {
				st.add(ref.Name, markOf(p.name, b.name), b)
			}
		}
	}
	for _, c := range st.by {
		st.all = append(st.all, c)
	}
	slices.SortFunc(st.all, func(a, b *stepCount) int { return cmp.Compare(a.runsName, b.runsName) })
	return st
}

func (st *stepStats) add(saga, step string, p planned) {
	directions := []Direction{Forward}
	if p.undo {
		directions = append(directions, Backward)
	}
	for _, d := range directions {
		labels := fmt.Sprintf(`{saga=%q,step=%q,direction=%q}`, saga, step, string(d))
		st.by[stepKey{saga, step, d}] = &stepCount{
			runsName: "step_attempts_total" + labels, failuresName: "step_failures_total" + labels,
			durationsName: "step_time_seconds_total" + labels,
		}
	}
}

// count adds an attempt that ended. A rejected one did not run.
func (st *stepStats) count(saga string, e Event) {
	c := st.by[stepKey{saga, e.Step, e.Direction}]
	if c == nil || e.Attempt == 0 || e.Outcome != Done && e.Outcome != Failed {
		return
	}
	c.runs.Add(1)
	c.nanos.Add(max(0, e.Ended.Sub(e.Started).Nanoseconds()))
	if e.Outcome == Failed {
		c.failures.Add(1)
	}
}

// metrics yields the counts until yield says no.
func (st *stepStats) metrics(yield func(string, float64) bool) bool {
	for _, c := range st.all {
		if !yield(c.runsName, float64(c.runs.Load())) || !yield(c.failuresName, float64(c.failures.Load())) ||
			!yield(c.durationsName, time.Duration(c.nanos.Load()).Seconds()) {
			return false
		}
	}
	return true
}

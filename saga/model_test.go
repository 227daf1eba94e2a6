package saga

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// model is one instance, its store and two nodes, driven by the shipped transition function: every order of events is tried,
// with every outcome of every attempt, and one node lost at any moment or held up past its lease.
type model struct {
	at      Progress
	token   int
	owner   int // 0 for nobody
	expired bool
	nodes   [3]mnode // 1 and 2
	losses  int      // that are left
	effects [2]bool
	done    [2]int // records of a Do
	runs    [2]int // of each Do
}

type mnode struct {
	holds, ran, dead bool
	token            int
	at               Progress
	res              string
}

// flaws are what may be wrong with the machine, to see that it shows.
type flaws struct{ unfenced, forgetsDoubt, forgetsLoss bool }

var modelPlan = &plan{pivot: -1, steps: []planned{
	{name: "a", undo: true, retry: Retry{MaxAttempts: 2}, undoRetry: Retry{MaxAttempts: 9}},
	{name: "b", undo: true, retry: Retry{MaxAttempts: 2}, undoRetry: Retry{MaxAttempts: 9}},
}}

var errModel = errors.New("boom")

// next lists the states that one event can lead to.
func (m model) next(f flaws) (all []model) {
	for n := 1; n <= 2; n++ {
		node := m.nodes[n]
		switch {
		case node.dead:
			continue
		case !node.holds:
			if m.at.Status.Active() && (m.owner == 0 || m.expired) {
				all = append(all, m.claim(n, f))
			}
			continue
		case !node.ran && m.owner == n && !m.expired: // its lease is good
			all = append(all, m.attempts(n)...)
		case !node.ran: // it has noticed that the lease is lost
			lost := m
			lost.nodes[n].holds = false
			all = append(all, lost)
		default:
			all = append(all, m.commit(n, f))
		}
		if m.losses > 0 {
			crash, late := m, m
			crash.losses, late.losses = m.losses-1, m.losses-1
			crash.nodes[n] = mnode{dead: true}
			if m.owner == n {
				crash.expired, late.expired = true, true
				all = append(all, late)
			}
			all = append(all, crash)
		}
	}
	return all
}

func (m model) claim(n int, f flaws) model {
	if m.owner != 0 && !f.forgetsLoss {
		m.at.Attempt++
		m.at.Doubt = true
	}
	m.owner, m.expired = n, false
	m.token++
	m.nodes[n] = mnode{holds: true, token: m.token, at: m.at}
	return m
}

// attempts tries each outcome of what the node has to do.
func (m model) attempts(n int) (all []model) {
	node := m.nodes[n]
	i := modelPlan.index(node.at.Step)
	outcomes := []string{"ok"}
	switch {
	case modelPlan.exhausted(i, node.at):
		outcomes = []string{"unstarted"}
	case node.at.Direction == Forward:
		outcomes = []string{"ok", "permanent", "failed", "failed after its effect"}
	}
	for _, res := range outcomes {
		after := m
		after.nodes[n].ran, after.nodes[n].res = true, res
		if node.at.Direction == Backward {
			after.effects[i] = after.effects[i] && res != "ok"
		} else if res != "unstarted" {
			after.runs[i]++
			after.effects[i] = after.effects[i] || res == "ok" || res == "failed after its effect"
		}
		all = append(all, after)
	}
	return all
}

func (m model) commit(n int, f flaws) model {
	node := m.nodes[n]
	m.nodes[n] = mnode{}
	if node.token != m.token && !f.unfenced {
		return m
	}
	i := modelPlan.index(node.at.Step)
	var res result
	switch node.res {
	case "permanent":
		res.err = Permanent(errModel)
	case "unstarted":
		res.err, res.unstarted = errModel, true
	case "failed", "failed after its effect":
		res.err = errModel
	}
	at := node.at
	if f.forgetsDoubt {
		at.Doubt = false
	}
	next, wait := modelPlan.advance(i, at, res)
	if res.err == nil && node.at.Direction == Forward {
		m.done[i]++
	}
	m.at = next
	m.token++
	m.owner, m.expired = 0, false
	if wait == 0 && next.Status.Active() { // it goes on with the next step
		m.owner = n
		m.nodes[n] = mnode{holds: true, token: m.token, at: next}
	}
	return m
}

// fault says what is wrong with a state, or nothing.
func (m model) fault(last bool) string {
	switch {
	case m.done[0] > 1 || m.done[1] > 1:
		return "a result was recorded twice"
	case m.runs[0] > 3 || m.runs[1] > 3:
		return "a step ran more often than its schedule and the losses allow"
	case m.at.Status == Completed && m.effects != [2]bool{true, true}:
		return "it completed without its effects"
	case m.at.Status == Compensated && slices.Contains(m.effects[:], true):
		return "it was compensated, and an effect is left"
	case last && m.at.Status.Active():
		return "it was lost"
	}
	return ""
}

// explore tries everything, and returns how many states there are and what is wrong with the first that is faulty.
func explore(f flaws) (states int, fault string) {
	start := model{losses: 1, at: Progress{Status: Running, Direction: Forward, Step: "a"}}
	seen, todo := map[string]bool{}, []model{start}
	for len(todo) > 0 {
		m := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		key := fmt.Sprintf("%+v", m)
		if seen[key] {
			continue
		}
		seen[key] = true
		next := m.next(f)
		if fault := m.fault(len(next) == 0); fault != "" {
			return len(seen), fmt.Sprintf("%s: %s", fault, key)
		}
		todo = append(todo, next...)
	}
	return len(seen), ""
}

func TestEveryInterleavingOfTwoNodesAndOneLossEndsWell(t *testing.T) {
	states, fault := explore(flaws{})
	require.Empty(t, fault)
	require.Greater(t, states, 1000)
	t.Logf("%d states", states)
}

func TestTheExplorationFindsPlantedBugs(t *testing.T) {
	for name, f := range map[string]flaws{
		"changes are not fenced":  {unfenced: true},
		"doubt is forgotten":      {forgetsDoubt: true},
		"a lost node leaves none": {forgetsLoss: true},
	} {
		_, fault := explore(f)
		require.NotEmpty(t, fault, name)
	}
}

func FuzzStoredState(f *testing.F) {
	type state struct {
		Text  string
		Items []int
		Inner struct{ A, B float64 }
	}
	for _, seed := range []string{`{}`, `null`, `{"Text":"x","Items":[1,2],"Inner":{"A":1e300}}`, `{"Text":1}`, `[`, ``, `{"text":"\ud800"}`, "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := MustDefine("fuzz", 1, Step[state]{Name: "a", Do: func(context.Context, *state) error { return nil }}, Parallel("g", Branch[state, state]{
			Name: "b", Do: func(_ context.Context, s state) (state, error) { return s, nil }, Merge: func(s *state, r state) { *s = r },
		}))
		ran, err := d.attempt(t.Context(), call{step: 0, dir: Forward, state: data})
		if err != nil {
			require.True(t, isCorrupt(err), "only a state that cannot be decoded fails here: %v", err)
			return
		}
		again, err := d.attempt(t.Context(), call{step: 0, dir: Forward, state: ran.state})
		require.NoError(t, err)
		require.JSONEq(t, string(ran.state), string(again.state))
		merged, err := d.merge(1, Progress{Step: "g", State: ran.state, Marks: map[string]Mark{"g/b": {Done: true, Result: data}}})
		require.NoError(t, err)
		require.JSONEq(t, string(ran.state), string(merged))
	})
}

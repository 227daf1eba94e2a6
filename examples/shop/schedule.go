package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// An ill is what can happen to a process or to a connection.
type ill string

const (
	killed  ill = "kill"  // SIGKILL, and a new process after a while
	paused  ill = "pause" // SIGSTOP, and SIGCONT after a while
	cut     ill = "cut"   // what is connected is cut, and nothing can connect for a while
	slowed  ill = "slow"  // each piece of data arrives late
	stalled ill = "stall" // no data arrives, and what is connected is cut after a while
)

// ills are how often each happens, and for how long at least and at most.
var ills = []struct {
	kind        ill
	every       time.Duration
	least, most time.Duration
	nodes       bool // happens to the nodes of a cluster of brokers
}{
	{kind: killed, every: 2 * time.Second, least: 100 * time.Millisecond, most: time.Second},
	{kind: paused, every: 5 * time.Second, least: 300 * time.Millisecond, most: 2 * time.Second},
	{kind: cut, every: 4 * time.Second, least: 100 * time.Millisecond, most: 800 * time.Millisecond},
	{kind: slowed, every: 6 * time.Second, least: time.Second, most: 3 * time.Second},
	{kind: stalled, every: 9 * time.Second, least: 300 * time.Millisecond, most: 1500 * time.Millisecond},
	{kind: killed, every: 10 * time.Second, least: time.Second, most: 2 * time.Second, nodes: true},
}

// A strike is one thing that is going to happen.
type strike struct {
	at   time.Duration // since the doors were opened
	kind ill
	whom string
	last time.Duration
}

func (s strike) String() string {
	what := map[ill]string{
		killed: "kill %s; another after %v", paused: "pause %s for %v", cut: "cut %s for %v", slowed: "slow %s for %v", stalled: "stall %s for %v",
	}[s.kind]
	return fmt.Sprintf("%6.1f s  "+what, s.at.Seconds(), s.whom, s.last)
}

// A schedule is all that is going to happen, in order. It follows from the seed and from who there is, and from nothing that
// happens meanwhile.
type schedule struct {
	rng  *rand.Rand
	who  map[ill][]string
	node []string
	next []time.Duration          // of each of ills
	busy map[string]time.Duration // until when, by name
}

// newSchedule strikes processes and links, and now and then a node of a cluster of brokers. Where nobody is given there is no
// strike of that kind.
func newSchedule(seed uint64, processes, links, nodes []string) *schedule {
	s := &schedule{
		rng:  rand.New(rand.NewPCG(seed, 0x66697265)),
		who:  map[ill][]string{killed: processes, paused: processes, cut: links, slowed: links, stalled: links},
		node: nodes,
		busy: map[string]time.Duration{},
	}
	if !canPause {
		delete(s.who, paused)
	}
	for _, i := range ills {
		s.next = append(s.next, i.every/2+s.within(0, i.every/2))
	}
	return s
}

func (s *schedule) within(least, most time.Duration) time.Duration {
	return least + time.Duration(s.rng.Int64N(int64(most-least)+1)).Round(time.Millisecond)
}

// strike is the next one; false: there is none.
func (s *schedule) strike() (strike, bool) {
	first := -1
	for i := range ills {
		if len(s.victims(i)) > 0 && (first < 0 || s.next[i] < s.next[first]) {
			first = i
		}
	}
	if first < 0 {
		return strike{}, false
	}
	i := ills[first]
	out := strike{at: s.next[first], kind: i.kind, last: s.within(i.least, i.most)}
	s.next[first] += i.every
	out.whom = s.pick(s.victims(first), out.at)
	s.busy[out.whom] = out.at + out.last
	return out, true
}

func (s *schedule) victims(i int) []string {
	if ills[i].nodes {
		return s.node
	}
	return s.who[ills[i].kind]
}

// pick prefers those to whom nothing is happening.
func (s *schedule) pick(from []string, at time.Duration) string {
	idle := slices.DeleteFunc(slices.Clone(from), func(name string) bool { return s.busy[name] > at })
	if len(idle) == 0 {
		idle = from
	}
	return idle[s.rng.IntN(len(idle))]
}

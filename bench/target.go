package bench

import "slices"

// Target is what a subject has to reach in one case, beside another subject of the same case in the same run.
type Target struct {
	Case    string
	Subject string
	Against string
	Ratio   float64 // at most so many times the other; of what it adds to the floor where Added is set
	Added   bool
	Plus    float64 // or at most so many ns more than the other; 0: Ratio counts
	Allocs  int64   // at most; negative: not judged
}

const anyNumber = -1 // of allocations

// Targets returns what this library sets out to reach.
func Targets() []Target {
	return slices.Concat([]Target{
		{closedCase, ours, failsafeBare, 0.6, false, 0, 0},
		{closedCase, ours, gobreakerName, 0.2, false, 0, 0},
		{closedCase + inParallel, ours, failsafeBare, 1, false, 0, 0},
		{closedCase, oursTimed, failsafeTimed, 0.55, false, 0, 0},
		{closedCase, oursTimed, gobreakerRolled, 0.4, false, 0, 0},
		{openCase, ours, failsafeBare, 0.5, false, 0, 0},
		{openCase, ours, gobreakerName, 0.25, false, 0, 0},
		{freeCase, ours, semaphoreName, 0.7, false, 0, 0},
		{contendedCase, ours, semaphoreName, 1, false, 0, anyNumber},
		{firstCase, ours, Floor, 0, false, 10, 0},
		{thirdCase, ours, avastName, 0.1, false, 0, anyNumber},
		{thirdCase, ours, sethvargoName, 0.1, false, 0, anyNumber},
		{thirdCase, ours, backoffName, 0.1, false, 0, anyNumber},
		{allowedCase, ours, rateName, 0.5, false, 0, 0},
		{fourCase, ours, failsafeName, 0.12, false, 0, 0},
		{oneTimeCase, ours, contextName, 1.3, false, 0, 5},
		{oneTimeCase, ours, failsafeName, 0.45, false, 0, 5},
		{twoTimesCase, ours, contextName, 2.8, false, 0, 12},
		{oneTimeCase + neverWaits, ours, contextName, 1.3, false, 0, 5},
		{twoTimesCase + neverWaits, ours, contextName, 2.8, false, 0, 12},
		{clientCase, ours, failsafeName, 0.4, true, 0, anyNumber},
		{timedClientCase, ours, failsafeName, 0.4, true, 0, anyNumber},
		{hitCase, ours, otterName, 1.25, false, 0, 0},
		{hitCase, ours, sturdyName, 0.5, false, 0, 0},
		{hitCase, oursRefreshing, otterName + ", refresh", 1.25, false, 0, 0},
		{hitCase + inParallel, ours, otterName, 1.25, false, 0, 0},
		{hitCase + inParallel, ours, sturdyName, 0.5, false, 0, 0},
		{missCase, ours, otterName, 1.3, false, 0, anyNumber},
		{missCase + inParallel, ours, otterName, 1.3, false, 0, anyNumber},
	}, redisTargets(), pubSubTargets(), outboxTargets(), sagaTargets())
}

// RatioTarget is what this library's hit ratio has to reach: on average over all traces it may fall short of that of Against, its
// engine, by so many percentage points.
var RatioTarget = struct {
	Subject, Against string
	Points           float64
}{ours, otterName, 0.3}

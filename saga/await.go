package saga

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Await is a step that waits for an event which Send brings, and then runs on with it: on is the step's Do, with attempts,
// Retry and Timeout as usual. An event that was sent before is taken at once. The instance holds no goroutine and no lease
// while it waits. After timeout, by the store's clock, the step fails with ErrTimeout, unless the step's OnTimeout is set; 0
// means that it waits as long as the saga may. The fields of the Step may be set, but for Do. No event is awaited twice.
func Await[State, E any](name, event string, timeout time.Duration, on func(ctx context.Context, s *State, e E) error) Step[State] {
	sp := &special[State]{kind: awaitStep, event: event, timeout: timeout}
	if on != nil {
		sp.receive = func(ctx context.Context, s *State, data json.RawMessage) error {
			var e E
			if err := json.Unmarshal(data, &e); err != nil {
				return &corruptError{fmt.Errorf("event %q cannot be decoded: %w", event, err)}
			}
			return on(ctx, s, e)
		}
	}
	return Step[State]{Name: name, special: sp}
}

// SleepUntil is a step that waits until the store's clock shows the time that until returns; a time in the past is no wait
// at all. It is asked each time the instance is looked at, and must not have effects. The instance holds no goroutine and
// no lease meanwhile. When and Pivot of the Step may be set.
func SleepUntil[State any](name string, until func(s State) time.Time) Step[State] {
	return Step[State]{Name: name, special: &special[State]{kind: sleepStep, until: until}}
}

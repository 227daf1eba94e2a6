package redispubsub_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// steadily makes a trial in which leases must not run out, with longer and longer ones until the machine has not stood
// still meanwhile: what then goes wrong is nobody's fault. The trial returns what went wrong, and may note times during
// which others stood still.
func steadily(t *testing.T, trial func(t *testing.T, lease time.Duration, stood func(time.Duration)) (wrong string)) {
	t.Helper()
	const last = 16 * time.Second
	for lease := 2 * time.Second; ; lease *= 2 {
		var longest atomic.Int64
		stood := func(d time.Duration) {
			for old := longest.Load(); int64(d) > old && !longest.CompareAndSwap(old, int64(d)); old = longest.Load() {
			}
		}
		end := feelPulse(stood)
		wrong := trial(t, lease, stood)
		end()
		gap := time.Duration(longest.Load())
		switch {
		case wrong == "":
			return
		case gap < lease/4 || lease == last:
			t.Fatal(wrong)
		}
		t.Logf("nothing moved for %v, with leases of %v; again after: %s", gap, lease, wrong)
	}
}

// feelPulse tells of times during which this process did not move, until end is called.
func feelPulse(stood func(time.Duration)) (end func()) {
	const step = 20 * time.Millisecond
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(step)
		defer ticker.Stop()
		for last := time.Now(); ; last = time.Now() {
			select {
			case <-ticker.C:
				stood(time.Since(last) - step)
			case <-done:
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

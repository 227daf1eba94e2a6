package saga

import (
	"context"
	"time"
)

const (
	// purgeEvery is the pause between two looks for what has outlived Config.Retention.
	purgeEvery = time.Minute
	// purgeBatch bounds how many instances one call of the store deletes, so that it never holds locks for long.
	purgeBatch = 1000
)

// purgeLoop deletes what has outlived Config.Retention, until ctx is done.
func (s *session) purgeLoop(ctx context.Context) {
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.purge(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// purge deletes batches until one is not full.
func (s *session) purge(ctx context.Context) {
	age := s.r.Config().Retention
	if age == 0 {
		return
	}
	for n := purgeBatch; n == purgeBatch; {
		var err error
		if n, err = s.r.store.(Purger).Purge(ctx, age, purgeBatch); err != nil && ctx.Err() == nil {
			s.r.trouble("Purge", err)
		}
	}
}

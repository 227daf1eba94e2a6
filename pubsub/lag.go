package pubsub

import (
	"context"
	"math"
	"sync"
	"time"
)

// Lag is how far a group is behind its topic, as its broker counts. The numbers may be a moment apart.
type Lag struct {
	// Waiting is the number of messages that the group has still to be given, those that were given back among them.
	Waiting int64
	// Unsettled is the number of those that members have and have not settled. Negative: the broker does not tell; the
	// driver says whether they are in Waiting then.
	Unsettled int64
}

// Lagger is what a Receiver may be besides, if its broker can tell how far the group is behind.
type Lagger interface {
	// Lag asks the broker, until ctx is done, for the whole group unless the driver says otherwise. It is called beside
	// the other methods, not often, and also while the Receiver closes, when it may fail.
	Lag(ctx context.Context) (Lag, error)
}

// Lag asks the broker how far the group is behind, until ctx is done. It is a *CapabilityError where the driver cannot
// tell. Metrics has the same without waiting, a few seconds old.
func (c *Consumer) Lag(ctx context.Context) (Lag, error) {
	if c.lag.lagger == nil {
		return Lag{}, &CapabilityError{Driver: c.bus.driver.Capabilities().Driver, Capability: "Lag"}
	}
	return c.lag.lagger.Lag(ctx)
}

const (
	// lagEvery is the time between two questions to the broker, lagTimeout bounds one.
	lagEvery   = 3 * time.Second
	lagTimeout = 2 * time.Second
	// lagUnread is how long the broker is asked although nobody reads the answers: scrapes may be a minute apart.
	lagUnread = 2 * time.Minute
	// lagStale is the age at which an answer is no longer told.
	lagStale = 15 * time.Second
)

// lagWatch asks for the lag while somebody reads it. Who reads gets the latest answer and never waits.
type lagWatch struct {
	lagger Lagger // nil: the driver cannot tell
	ctx    context.Context
	end    context.CancelFunc

	mu     sync.Mutex
	asking bool // there is a goroutine
	read   time.Time
	answer Lag
	at     time.Time // of the answer; zero: there was none
}

func newLagWatch(r Receiver) *lagWatch {
	w := &lagWatch{}
	w.lagger, _ = r.(Lagger)
	w.ctx, w.end = context.WithCancel(context.Background())
	return w
}

// look returns the numbers of the latest answer, or NaN where they are not known, and sees to it that there will be one.
func (w *lagWatch) look() (waiting, unsettled float64) {
	waiting, unsettled = math.NaN(), math.NaN()
	if w.ctx.Err() != nil {
		return waiting, unsettled
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.read = time.Now()
	if !w.asking {
		w.asking = true
		go w.run()
	}
	if w.at.IsZero() || time.Since(w.at) >= lagStale {
		return waiting, unsettled
	}
	if w.answer.Unsettled >= 0 {
		unsettled = float64(w.answer.Unsettled)
	}
	return float64(w.answer.Waiting), unsettled
}

func (w *lagWatch) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return // for good
		case <-timer.C:
		}
		if !w.wanted() {
			return
		}
		ctx, cancel := context.WithTimeout(w.ctx, lagTimeout)
		lag, err := w.lagger.Lag(ctx)
		cancel()
		if err == nil {
			w.mu.Lock()
			w.answer, w.at = lag, time.Now()
			w.mu.Unlock()
		}
		timer.Reset(lagEvery)
	}
}

// wanted reports whether somebody still reads. If not, the next one who does starts anew.
func (w *lagWatch) wanted() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asking = time.Since(w.read) < lagUnread
	return w.asking
}

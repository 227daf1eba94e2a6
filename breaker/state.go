package breaker

import "time"

// State is one of the three states of a circuit breaker.
type State int

// The states.
const (
	Closed   State = iota // calls pass and are judged
	Open                  // calls are rejected
	HalfOpen              // a few calls pass as probes
)

// String is the state in lower case.
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	default:
		return "half-open"
	}
}

// Transition is a change of state, as given to the hook of [OnStateChange].
type Transition struct {
	Name     string
	From, To State
	At       time.Time
}

// state is everything that changes together. It is immutable but for what it points to. The window (while closed), the
// rejection (while open) and the episode (while half-open) are the generation: a permit that was given under another one
// changes nothing.
type state struct {
	kind      State
	cfg       Config
	free      bool // closed and slow calls are not judged: a call needs no look at the clock to be let in
	clocked   bool // a result needs one to be recorded
	window    *window
	rejection *Error
	episode   *episode

	repeats   int           // openings in a row before this one, or before the next
	lastDelay time.Duration // of the latest opening
	since     time.Duration // when it was closed
}

// withConfig completes s for cfg.
func (s state) withConfig(cfg Config) *state {
	s.cfg = cfg
	s.free = s.kind == Closed && cfg.SlowCall <= 0
	s.clocked = cfg.SlowCall > 0 || cfg.WindowTime > 0
	return &s
}

func (s *state) sameGeneration(other *state) bool {
	return s.window == other.window && s.episode == other.episode && s.rejection == other.rejection
}

// forced reports whether an operator holds the breaker in this state.
func (s *state) forced() bool { return s.cfg.Mode == forceOpen || s.cfg.Mode == forceClosed }

// delayIsOver reports whether an open breaker lets probes through.
func (s *state) delayIsOver(now time.Duration) bool {
	if s.rejection.forced || now < s.rejection.until {
		return false
	}
	s.rejection.nearly.Store(true) // whoever has seen it is let in: the timer may be late
	return true
}

// successor is the state that follows current in the given Config.
func (b *Breaker) successor(current *state, to State, cfg Config) *state {
	now := b.now()
	next := state{kind: to, repeats: current.repeats, lastDelay: current.lastDelay, since: now}
	switch to {
	case Open:
		next.rejection = &Error{name: cfg.Name, state: Open, base: b.base}
		if next.rejection.forced = cfg.Mode == forceOpen; next.rejection.forced {
			next.repeats, next.lastDelay = 0, 0
			break
		}
		next.repeats = current.repeatsAt(now)
		next.lastDelay = cfg.delay(next.repeats)
		next.rejection.lasts(now, next.lastDelay)
	case HalfOpen:
		next.episode = current.episode.renewed()
		next.rejection = &Error{name: cfg.Name, state: HalfOpen, base: b.base}
	default:
		next.window = newWindow(cfg)
	}
	return next.withConfig(cfg)
}

// repeatsAt is how many openings in a row an opening now would follow. Closing ends the row once it has lasted for as long as
// the opening before it did.
func (s *state) repeatsAt(now time.Duration) int {
	if s.lastDelay == 0 || s.kind == Closed && now-s.since >= s.lastDelay {
		return 0
	}
	return s.repeats + 1
}

// near is how long before its end the clock decides about an opening.
const near = 100 * time.Millisecond

// lasts sets when the breaker lets probes through. While that is far off a rejection need not read the clock: a timer tells
// when it no longer is, early enough for the clock to decide the moment.
func (e *Error) lasts(now, delay time.Duration) {
	e.until = now + delay
	if delay <= 2*near {
		e.nearly.Store(true)
		return
	}
	time.AfterFunc(delay-near, func() { e.nearly.Store(true) })
}

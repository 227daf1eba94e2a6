package rabbitpubsub

import "time"

const (
	// paceWindow is the time over which a consumer is measured, unless it is found fast before.
	paceWindow = 20 * time.Millisecond
	// paceFast is the number of messages that a fast one takes in it, at least.
	paceFast = 64
	// paceStalled is how long the oldest message that was fetched ahead may wait for a fast one.
	paceStalled = 500 * time.Millisecond
)

// pace decides how many messages an unordered receiver holds: what its owner asks for at a time, so that the others of
// the group have the rest, or many when the owner takes them quickly.
type pace struct {
	small int // what the owner has asked for
	large int
	fast  bool
	taken int
	since time.Duration
}

// asked notes what the owner asks for.
func (p *pace) asked(limit, most int) {
	p.small, p.large = max(p.small, min(limit, most)), most
}

// prefetch is the number to hold.
func (p *pace) prefetch() int {
	if p.fast {
		return p.large
	}
	return p.small
}

// took notes what the owner has got, and reports a change.
func (p *pace) took(n int, now time.Duration) bool {
	p.taken += n
	long := now - p.since
	if long < paceWindow && (p.fast || p.taken < paceFast) {
		return false
	}
	was := p.fast
	if long < 4*paceWindow && p.taken >= paceFast {
		p.fast = true
	}
	p.taken, p.since = 0, now
	return p.fast != was
}

// stalled notes that n messages wait, the oldest for so long, and reports a change.
func (p *pace) stalled(n int, oldest time.Duration) bool {
	if !p.fast || n <= p.small || oldest < paceStalled {
		return false
	}
	p.fast, p.taken = false, 0
	return true
}

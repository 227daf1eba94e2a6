package breaker

import (
	"sync"
	"time"
)

// episode counts the probes of one half-open generation.
type episode struct {
	mu        sync.Mutex
	issued    int
	succeeded int
	lastIssue time.Duration
}

type issueResult int

const (
	refused issueResult = iota
	issued
	expired // probes under way have outlived ProbeTimeout: a new generation takes over
)

// issue takes one of the probes that are left.
func (e *episode) issue(now time.Duration, cfg Config) issueResult {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.issued < cfg.Probes {
		e.issued++
		e.lastIssue = now
		return issued
	}
	if cfg.ProbeTimeout > 0 && now-e.lastIssue >= cfg.ProbeTimeout {
		return expired
	}
	return refused
}

// giveBack returns a probe that told nothing.
func (e *episode) giveBack() {
	e.mu.Lock()
	e.issued--
	e.mu.Unlock()
}

// succeed counts a success and returns how many there are.
func (e *episode) succeed() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.succeeded++
	return e.succeeded
}

// renewed is the episode after e: without the probes that are lost, with the successes that were seen. e may be nil.
func (e *episode) renewed() *episode {
	if e == nil {
		return new(episode)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return &episode{issued: e.succeeded, succeeded: e.succeeded}
}

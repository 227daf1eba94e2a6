package breaker

import (
	"sync"
	"sync/atomic"
	"time"
)

// episode counts the probes of one half-open generation.
type episode struct {
	mu        sync.Mutex   // held to change it; what a refusal needs is read without
	issued    atomic.Int64 // written after lastIssue
	lastIssue atomic.Int64
	succeeded int
}

type issueResult int

const (
	refused issueResult = iota
	issued
	expired // probes under way have outlived ProbeTimeout: a new generation takes over
)

// issue takes one of the probes that are left.
func (e *episode) issue(now time.Duration, cfg *Config) issueResult {
	if e.full(cfg) {
		return e.wait(now, cfg)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.full(cfg) {
		return e.wait(now, cfg)
	}
	e.lastIssue.Store(int64(now))
	e.issued.Add(1)
	return issued
}

func (e *episode) full(cfg *Config) bool { return e.issued.Load() >= int64(cfg.Probes) }

// wait tells whether there is still something to wait for when all probes are under way.
func (e *episode) wait(now time.Duration, cfg *Config) issueResult {
	if cfg.ProbeTimeout > 0 && int64(now)-e.lastIssue.Load() >= int64(cfg.ProbeTimeout) {
		return expired
	}
	return refused
}

// giveBack returns a probe that told nothing.
func (e *episode) giveBack() { e.issued.Add(-1) }

// succeed counts a success and returns how many there are.
func (e *episode) succeed() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.succeeded++
	return e.succeeded
}

// renewed is the episode after e: without the probes that are lost, with the successes that were seen. e may be nil.
func (e *episode) renewed() *episode {
	next := new(episode)
	if e != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		next.succeeded = e.succeeded
		next.issued.Store(int64(e.succeeded))
	}
	return next
}

package redistest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// ErrSource is the failure of a Source.
var ErrSource = errors.New("the source is down")

// Source is what the caches of several nodes load from. Every key has the same value until Write.
type Source[V any] struct {
	// Loads counts the calls of Load.
	Loads atomic.Int64
	mu    sync.Mutex
	value V
	newer map[string]V
	err   error
	gate  chan struct{} // not nil: loads that have read wait for it
	begun chan struct{}
}

// NewSource has value under every key.
func NewSource[V any](value V) *Source[V] {
	return &Source[V]{value: value, newer: map[string]V{}, begun: make(chan struct{}, 1000)}
}

// Write sets the value of one key.
func (s *Source[V]) Write(key string, value V) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newer[key] = value
}

// Fail lets loads fail with err from now on, or succeed if it is nil.
func (s *Source[V]) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// Hold lets loads that begin from now on wait, after they have read, until the returned function is called.
func (s *Source[V]) Hold() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gate := make(chan struct{})
	s.gate = gate
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.gate = nil
		close(gate)
	})
}

// Begun receives once for each load that has read and waits.
func (s *Source[V]) Begun() <-chan struct{} { return s.begun }

// Load is the loader.
func (s *Source[V]) Load(ctx context.Context, key string) (V, error) {
	s.Loads.Add(1)
	gate, value, err := s.read(key)
	if gate != nil {
		s.begun <- struct{}{}
		select {
		case <-gate:
		case <-ctx.Done():
			return value, ctx.Err()
		}
	}
	return value, err
}

func (s *Source[V]) read(key string) (<-chan struct{}, V, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.newer[key]
	if !ok {
		value = s.value
	}
	return s.gate, value, s.err
}

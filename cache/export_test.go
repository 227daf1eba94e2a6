package cache

import "testing"

// NewMemory makes the built-in store alone, and closes it with the test.
func NewMemory[K comparable, V any](t *testing.T, maxEntries int) Store[K, V] {
	m := newMemory[K, V](maxEntries)
	t.Cleanup(m.close)
	return m
}

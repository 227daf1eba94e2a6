package cache

// SetRandom replaces the randomness of jitter, backoff and early refresh, before the cache is used.
func (e *engine[K, V]) SetRandom(random func() float64) { e.random = random }

package cache

// Marks is how many marks of flushes the pending keys carry.
func (b *WriteBehind[K, V]) Marks() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.queue.table {
		n += len(p.waits)
	}
	return n
}

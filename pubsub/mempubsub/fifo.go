package mempubsub

// fifo is a queue in a ring that grows by doubling.
type fifo[T any] struct {
	ring []T // its length is a power of two
	head int
	n    int
}

// keptRing is the longest ring that an empty queue keeps.
const keptRing = 1024

func (f *fifo[T]) push(v T) {
	if f.n == len(f.ring) {
		f.grow()
	}
	f.ring[(f.head+f.n)&(len(f.ring)-1)] = v
	f.n++
}

func (f *fifo[T]) grow() {
	ring := make([]T, max(16, 2*len(f.ring)))
	n := copy(ring, f.ring[f.head:])
	copy(ring[n:], f.ring[:f.head])
	f.ring, f.head = ring, 0
}

// pop takes out the oldest, which there must be.
func (f *fifo[T]) pop() T {
	var zero T
	v := f.ring[f.head]
	f.ring[f.head] = zero
	f.head = (f.head + 1) & (len(f.ring) - 1)
	f.n--
	if f.n == 0 && len(f.ring) > keptRing {
		f.ring, f.head = nil, 0
	}
	return v
}

// at is the i-th oldest.
func (f *fifo[T]) at(i int) T { return f.ring[(f.head+i)&(len(f.ring)-1)] }

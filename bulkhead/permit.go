package bulkhead

// Permit is leave to run one call. It is a value, is held by one goroutine at a time, and must not be copied after
// [Bulkhead.Acquire] has returned it. Exactly one of Done and Abort has an effect: the first. The zero Permit does nothing.
type Permit struct {
	_      noCopy
	b      *Bulkhead
	weight uint64
}

// Done gives the permit back. The result does not matter to a bulkhead: the parameter makes all permits alike.
func (p *Permit) Done(error) { p.Abort() }

// Abort gives the permit back, unless Done was called.
func (p *Permit) Abort() {
	b := p.b
	if b == nil {
		return
	}
	p.b = nil
	b.release(p.weight)
}

// noCopy makes vet's copylocks check catch copies.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

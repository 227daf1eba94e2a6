package natspubsub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Members tell each other how many lanes they have, so that each finds out by itself what its share is. Nothing depends
// on that being right: lanes change hands by their records alone.

// memberGone is how long a member counts that is not heard of.
const memberGone = 5 * time.Second

// member is another member of the group.
type member struct {
	lanes int
	heard time.Duration
}

// tell sends the others what the member has, and what has just happened.
func (r *laneReceiver) tell(what string) {
	r.mu.Lock()
	lanes := r.owned()
	r.mu.Unlock()
	_ = r.driver.conn.Publish(r.store.gossip(), fmt.Appendf(nil, "%s %d %s", r.id, lanes, what))
}

// owned is the number of lanes that the member has and keeps. It is called with the mutex held.
func (r *laneReceiver) owned() (n int) {
	for _, l := range r.lanes {
		if l.owned && !l.leaving {
			n++
		}
	}
	return n
}

// onGossip notes what another member says. It runs on the subscription's goroutine.
func (r *laneReceiver) onGossip(m *nats.Msg) {
	var id, what string
	var lanes int
	if _, err := fmt.Sscan(string(m.Data), &id, &lanes, &what); err != nil || id == r.id {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if what == "bye" {
		delete(r.members, id)
	} else {
		r.members[id] = member{lanes, r.now()}
	}
	if what != "here" { // somebody is new, or there are lanes to have
		r.lookNow = true
		signal(r.poke)
	}
}

// share is how many lanes the member may have, and how many it has to give up if no lane is free.
func (r *laneReceiver) share() (most, surplus int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	least := len(r.lanes)
	r.forgetMembers()
	for _, m := range r.members {
		least = min(least, m.lanes)
	}
	members := len(r.members) + 1
	low := len(r.lanes) / members
	most = (len(r.lanes) + members - 1) / members
	mine := r.owned()
	surplus = max(mine-most, 0)
	if least < low { // what is over is for those who have less
		most = low
		surplus = max(surplus, min(mine-low, 1))
	}
	return most, surplus
}

// forgetMembers forgets those that are not heard of. It is called with the mutex held.
func (r *laneReceiver) forgetMembers() {
	now := r.now()
	maps.DeleteFunc(r.members, func(_ string, m member) bool { return now-m.heard > memberGone })
}

// alone reports whether the member knows of no other. It is called with the mutex held.
func (r *laneReceiver) alone() bool {
	r.forgetMembers()
	return len(r.members) == 0
}

// tend tells the others of the member, looks at the lanes that it does not have, and takes or gives up some. It fails when
// the topic is gone.
func (r *laneReceiver) tend(ctx context.Context) error {
	r.mu.Lock()
	active, greeted := r.active, r.greeted
	r.greeted = true
	r.mu.Unlock()
	if !active {
		return nil
	}
	what := "here"
	if !greeted {
		what = "hello"
	}
	r.tell(what)
	if err := r.look(ctx); err != nil {
		return err
	}
	most, surplus := r.share()
	r.mu.Lock()
	free := r.free()
	room := most - r.owned()
	if surplus > 0 && len(free) == 0 || surplus > 1 {
		r.giveUp(surplus)
	}
	r.mu.Unlock()
	if room <= 0 || len(free) == 0 {
		return nil
	}
	rand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	return r.takeAll(ctx, free[:min(room, len(free))])
}

// giveUp stops the delivery of n lanes, of such as have nothing in flight if possible. It is called with the mutex held.
func (r *laneReceiver) giveUp(n int) {
	for _, busy := range []bool{false, true} {
		for _, l := range r.lanes {
			if n > 0 && l.owned && !l.leaving && (l.held > 0) == busy {
				l.leaving = true
				n--
			}
		}
	}
}

// free lists the lanes that nobody has, or a member that has not written for a lease. It is called with the mutex held.
func (r *laneReceiver) free() (free []*lane) {
	now := r.now()
	for _, l := range r.lanes {
		if !l.owned && l.known && (l.record.Owner == "" || l.record.Owner == r.id || now-l.seen > leaseFor(l.record.Lease)) {
			free = append(free, l)
		}
	}
	return free
}

// look reads the records of the lanes that the member does not have.
func (r *laneReceiver) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.writeTimeout())
	defer cancel()
	var wg sync.WaitGroup
	r.mu.Lock()
	var others []*lane
	for _, l := range r.lanes {
		if !l.owned {
			others = append(others, l)
		}
	}
	r.mu.Unlock()
	errs := make([]error, len(others))
	for i, l := range others {
		wg.Go(func() { errs[i] = r.lookAt(ctx, l) })
	}
	wg.Wait()
	for _, err := range errs {
		if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, nats.ErrNoResponders) {
			if err := r.store.exists(ctx); errors.Is(err, jetstream.ErrStreamNotFound) {
				return err
			}
		}
	}
	return nil
}

func (r *laneReceiver) lookAt(ctx context.Context, l *lane) error {
	rec, revision, err := r.store.get(ctx, l.index)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.owned {
		return nil
	}
	if !l.known || revision != l.revision {
		l.known, l.record, l.revision, l.seen = true, rec, revision, r.now()
	}
	return nil
}

// takeAll takes lanes that are free. It fails when the topic is gone.
func (r *laneReceiver) takeAll(ctx context.Context, free []*lane) error {
	ctx, cancel := context.WithTimeout(ctx, r.writeTimeout())
	defer cancel()
	stream, err := r.driver.js.Stream(ctx, r.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	if err != nil {
		return nil //nolint:nilerr // it is tried again
	}
	var wg sync.WaitGroup
	for _, l := range free {
		wg.Go(func() { r.takeLane(ctx, l, stream) })
	}
	wg.Wait()
	return nil
}

// takeLane replaces the record of a free lane, unless another member is quicker.
func (r *laneReceiver) takeLane(ctx context.Context, l *lane, stream jetstream.Stream) {
	r.mu.Lock()
	rec, revision := l.record, l.revision
	r.mu.Unlock()
	died := rec.Owner != "" && rec.Owner != r.id
	rec = r.adapt(rec, stream.CachedInfo())
	if died {
		last, err := stream.GetLastMsgForSubject(ctx, l.subject)
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && last.Sequence <= rec.Floor:
			rec.Deaths = 0 // there was nothing to die of
		case err != nil:
			return
		case rec.Deaths > 0 && rec.DeathFloor == rec.Floor:
			rec.Deaths++
		default:
			rec.Deaths, rec.DeathFloor = 1, rec.Floor
		}
	}
	rec.Owner, rec.Lease, rec.Epoch = r.id, r.sub.Lease, rec.Epoch+1
	begun := r.now()
	revision, err := r.store.put(ctx, l.index, rec, revision)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		l.known = false
		return
	}
	l.take(rec, revision, begun, r.sub.LaneDepth, died)
}

// adapt makes a record be about the stream that there is. In one that was made anew nothing is settled; one that has lost
// its end, with the server's power, goes on before where it was.
func (r *laneReceiver) adapt(rec laneRecord, info *jetstream.StreamInfo) laneRecord {
	switch {
	case rec.Epoch == 0 && rec.Stream.IsZero(): // somebody has removed the record
		rec = r.first
	case !rec.Stream.Equal(info.Created):
		return laneRecord{Stream: info.Created, Epoch: rec.Epoch}
	}
	if rec.Floor > info.State.LastSeq {
		rec.Floor, rec.Acked, rec.Tries = info.State.LastSeq, nil, nil
	}
	return rec
}

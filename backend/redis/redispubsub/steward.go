package redispubsub

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/backstay-go/backstay/pubsub"
)

// steward does what is to be written: it renews the leases, takes and gives back lanes, counts what is about to be
// delivered, and passes on what is settled.
func (r *ordered) steward() {
	ticker := time.NewTicker(r.every())
	defer ticker.Stop()
	var pause time.Duration
	due := true
	for {
		ctx, cancel := r.call()
		err := r.writeAll(ctx, due)
		cancel()
		switch {
		case err == nil:
			pause, due = 0, false
		case isFinal(err):
			r.fail(err)
			return
		case !r.nap(&pause):
			return
		default:
			due = true // whatever it was, the leases come first
			continue
		}
		select {
		case <-ticker.C:
			due = true
		case <-r.work:
			r.laneMu.Lock()
			due, r.due = due || r.due, false
			r.laneMu.Unlock()
		case <-r.closing:
			return
		case <-r.ctx.Done():
			return
		}
	}
}

func (r *ordered) writeAll(ctx context.Context, due bool) error {
	if due {
		if err := r.renew(ctx); err != nil {
			return err
		}
	}
	if err := r.sync(ctx); err != nil {
		return err
	}
	r.laneMu.Lock()
	ringing := r.ringing
	r.laneMu.Unlock()
	if ringing {
		r.ring(ctx, r.name)
	}
	return nil
}

// renew says that the member is well, takes its share of the lanes and lets go of more than that.
func (r *ordered) renew(ctx context.Context) error {
	gone := r.abandoned()
	r.laneMu.Lock()
	if gone {
		r.leaving = true
	}
	working := r.begun && !r.leaving
	present := r.temporary || r.begun
	known := slices.Clone(r.turn)
	r.laneMu.Unlock()
	if !present {
		return nil
	}
	p, err := r.beat(ctx, working, known)
	if err != nil {
		return err
	}
	r.laneMu.Lock()
	changed, err := r.apply(p)
	r.laneMu.Unlock()
	if p.joined {
		r.ringOthers(ctx) // who have to let go of something
	}
	if changed {
		r.announce()
	}
	return err
}

// apply takes over what a beat tells. The lock is held.
func (r *ordered) apply(p pulse) (changed bool, err error) {
	until := p.begun + r.lease
	for lane, n := range r.lanes {
		if p.mine[lane] != n.token {
			r.drop(n)
			changed = true
			continue
		}
		n.until.Store(int64(until))
	}
	for _, t := range p.taken {
		n, err := newTenure(t, until, r.driver.now)
		if err != nil {
			return changed, err
		}
		r.lanes[t.lane] = n
		r.turn = append(r.turn, t.lane)
		changed = true
	}
	staying := 0
	for _, n := range r.lanes {
		if !n.leaving {
			staying++
		}
	}
	for _, lane := range slices.Clone(r.turn) { // quiet ones first
		if n := r.lanes[lane]; staying > p.share && !n.leaving && n.unsettled == 0 {
			n.leaving = true
			staying--
		}
	}
	for _, lane := range r.turn {
		if n := r.lanes[lane]; staying > p.share && !n.leaving {
			n.leaving = true
			staying--
		}
	}
	if changed {
		r.ringing = true
		kick(r.hungry)
	}
	return changed, nil
}

// drop forgets a lane that is lost or has been given back. The lock is held.
func (r *ordered) drop(n *tenure) {
	n.lost.Store(true)
	if r.lanes[n.lane] == n {
		delete(r.lanes, n.lane)
		r.turn = slices.DeleteFunc(r.turn, func(lane int) bool { return lane == n.lane })
	}
}

// order is what is to be done about a lane.
type order struct {
	tenure  *tenure
	what    string // keep, free or anew
	last    *entry // up to which entries are counted; nil: none
	settled int    // acknowledgements that are passed on
}

// sync writes the state of all lanes where it has changed.
func (r *ordered) sync(ctx context.Context) error {
	r.laneMu.Lock()
	orders, keys, args := r.orders()
	r.laneMu.Unlock()
	if len(orders) == 0 {
		return nil
	}
	begun := r.driver.now()
	answer, err := r.driver.attend(ctx, syncScript, keys, args...)
	var tokens []string
	if err == nil {
		tokens, err = answer.AsStrSlice()
	}
	if err == nil && len(tokens) != len(orders) {
		err = errAnswer
	}
	r.laneMu.Lock()
	freed := false
	for i, o := range orders {
		if err == nil {
			err = r.obey(o, tokens[i], begun)
			freed = freed || o.what == "free"
		}
	}
	r.laneMu.Unlock()
	if err != nil {
		return err
	}
	r.announce()
	if freed {
		r.ringOthers(ctx)
	}
	return nil
}

// orders finds what is to be written. The lock is held.
func (r *ordered) orders() (orders []order, keys, args []string) {
	now := r.driver.now()
	budget := r.pace.ask(max(r.limit, 1))
	keys = append(keys, r.topic.state(r.group))
	args = append(args, r.group, r.name, millis(r.lease))
	for _, lane := range r.turn {
		n := r.lanes[lane]
		o := order{tenure: n, settled: n.dirty}
		count := n.countable(r.depth, budget)
		counted := n.counted
		switch {
		case r.leaving || n.leaving && n.unsettled == 0:
			o.what = "free"
			n.leaving = true
			counted = n.next // what was not delivered does not count
		case n.rewind || n.lapsed(now):
			o.what, n.rewind = "anew", true
		case n.dirty > 0 || count > 0:
			o.what = "keep"
			budget -= count
			counted += count
		default:
			continue
		}
		marks, high := n.marksText(), n.high(counted)
		if o.what == "anew" { // the server's count of it begins anew, too
			marks, high = marks+" "+high, ""
		}
		if counted > 0 {
			o.last = n.entries[counted-1]
		}
		orders = append(orders, o)
		keys = append(keys, r.topic.lanes[lane])
		args = append(args, strconv.Itoa(lane), n.token, o.what, n.cursor.String(), n.ahead(), high, marks)
	}
	return orders, keys, args
}

// obey takes over what the server has done about a lane. The lock is held.
func (r *ordered) obey(o order, token string, begun time.Duration) error {
	n := o.tenure
	n.dirty -= o.settled
	switch {
	case token == "0":
		r.drop(n)
		r.due = true
		kick(r.work)
		return nil
	case o.what == "free":
		r.drop(n)
		return nil
	case o.what == "anew":
		n.until.Store(int64(begun + r.lease))
		return n.anew(token)
	}
	n.until.Store(int64(begun + r.lease))
	if o.last != nil {
		for n.counted < len(n.entries) && n.entries[n.counted].id.compare(o.last.id) <= 0 {
			n.counted++
		}
	}
	return nil
}

// read fetches entries of the lanes that have few, until the receiver closes.
func (r *ordered) read() {
	var pause time.Duration
	for {
		select {
		case <-r.closing:
			return
		default:
		}
		keys, ids, lanes := r.readable()
		if len(keys) == 0 {
			select {
			case <-r.hungry:
				continue
			case <-r.closing:
				return
			case <-r.ctx.Done():
				return
			}
		}
		err := r.fetch(keys, ids, lanes)
		switch {
		case err == nil:
			pause = 0
		case isFinal(err):
			r.fail(err)
			return
		case !r.nap(&pause):
			return
		}
	}
}

// readable lists what is to be read: the bell, and the lanes that have few entries left. It is empty until Receive has
// been called.
func (r *ordered) readable() (keys, ids []string, lanes []*tenure) {
	r.laneMu.Lock()
	defer r.laneMu.Unlock()
	if !r.begun {
		return nil, nil, nil
	}
	within := make(map[int]bool, len(r.lanes))
	for lane, n := range r.lanes {
		if n.leaving || n.fresh() >= r.fetchAhead()/2 {
			continue
		}
		within[lane] = true
		keys = append(keys, r.topic.lanes[lane])
		ids = append(ids, n.read.String())
		lanes = append(lanes, n)
	}
	r.within, r.ringing = within, false
	return append(keys, r.bell()), append(ids, r.bellAt), lanes
}

// fetch waits for entries and reads them.
func (r *ordered) fetch(keys, ids []string, lanes []*tenure) error {
	ctx, cancel := context.WithTimeout(r.ctx, blockFor+blockSlack)
	defer cancel()
	read := r.driver.client.B().Xread().Count(int64(r.fetchAhead())).Block(blockFor.Milliseconds()).Streams().Key(keys...).Id(ids...).Build()
	answer, err := r.driver.client.Do(undated{ctx}, read).ToMessage()
	if rueidis.IsRedisNil(err) {
		err = nil
	} else if err == nil {
		err = r.takeIn(answer, keys, lanes)
	}
	r.laneMu.Lock()
	defer r.laneMu.Unlock()
	r.within = nil
	if err == nil {
		r.stir()
	}
	return err
}

// fetched are the entries of a lane.
type fetched struct {
	tenure *tenure
	ids    []streamID
	msgs   []pubsub.Message
}

func (r *ordered) takeIn(answer rueidis.RedisMessage, keys []string, lanes []*tenure) error {
	var all []fetched
	rung := false
	err := streams(answer, func(key string, entries []rueidis.RedisMessage) error {
		i := slices.Index(keys, key)
		if i < 0 || i == len(lanes) {
			var err error
			rung, err = r.rung(entries)
			return err
		}
		f := fetched{tenure: lanes[i], ids: make([]streamID, 0, len(entries)), msgs: make([]pubsub.Message, 0, len(entries))}
		for _, e := range entries {
			text, m, ok, err := r.decoder.entry(e)
			if err != nil || !ok {
				return err
			}
			id, err := parseID(text)
			if err != nil {
				return err
			}
			f.ids, f.msgs = append(f.ids, id), append(f.msgs, m)
		}
		all = append(all, f)
		return nil
	})
	if err != nil {
		return err
	}
	r.laneMu.Lock()
	for _, f := range all {
		for i := range f.ids {
			f.tenure.append(f.ids[i], f.msgs[i])
		}
	}
	if rung {
		r.due = true
	}
	countable := len(all) > 0
	r.laneMu.Unlock()
	if rung || countable {
		kick(r.work)
	}
	return nil
}

// rung notes how far the bell has been heard, and reports whether others have rung it.
func (r *ordered) rung(entries []rueidis.RedisMessage) (others bool, err error) {
	for _, e := range entries {
		id, m, ok, err := r.decoder.entry(e)
		if err != nil {
			return others, err
		}
		r.bellAt = id
		others = others || ok && m.Header[bellField] != r.name
	}
	return others, nil
}

package redispubsub

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// read fetches messages whenever some are missing, until the receiver closes.
func (r *shared) read() {
	var pause time.Duration
	misses := 0 // NOGROUP in a row, which may be the bell's
	active := 1 // lanes that had something the last time
	for {
		r.readyMu.Lock()
		n := r.missing()
		r.readyMu.Unlock()
		if n == 0 {
			select {
			case <-r.hungry:
				continue
			case <-r.closing:
				return
			case <-r.ctx.Done():
				return
			}
		}
		select {
		case <-r.closing:
			return
		default:
		}
		err := r.fetch(n, &active)
		if isGone(err) && misses < 3 {
			misses++
			err = r.bellAgain(err)
		}
		switch {
		case err == nil:
			pause, misses = 0, 0
		case isFinal(err) && (!isGone(err) || misses >= 3):
			r.fail(err)
			return
		case !r.nap(&pause):
			return
		}
	}
}

// bellAgain makes the bell anew, which may be what the server does not know. It returns err for the caller to try again.
func (r *shared) bellAgain(err error) error {
	ctx, cancel := r.call()
	defer cancel()
	return errors.Join(err, r.installBell(ctx))
}

// fetch reads about n messages. For an owner that is fast it reads from all lanes at once, which may bring more of them;
// for one that is slow it takes no more than asked for, so that others get the rest, and waits for a single one.
func (r *shared) fetch(n int, active *int) error {
	if n < paceLeast {
		got, err := r.takeNew(n)
		if err != nil || got > 0 {
			return err
		}
		_, err = r.readLanes(1)
		return err
	}
	lanes, err := r.readLanes(max(n / *active, 1))
	*active = max(lanes, 1)
	return err
}

// takeNew reads at most n messages, without waiting.
func (r *shared) takeNew(n int) (got int, err error) {
	ctx, cancel := r.call()
	defer cancel()
	at := r.driver.now()
	r.turn = (r.turn + 1) % len(r.topic.lanes)
	answer, err := r.driver.attend(ctx, takeScript, r.topic.lanes, r.group, r.name, strconv.Itoa(n), strconv.Itoa(r.turn))
	if err != nil {
		return 0, err
	}
	parts, err := answer.ToArray()
	if err != nil {
		return 0, err
	}
	b := newBatch(len(parts) / 2)
	for i := 0; i+1 < len(parts); i += 2 {
		lane, err := parts[i].AsInt64()
		if err != nil {
			return 0, err
		}
		if err := b.add(&r.reader, int(lane), 1, parts[i+1], at); err != nil {
			return 0, err
		}
	}
	r.push(b)
	return len(b.ds), nil
}

// readLanes waits for messages and reads up to count of each lane. It returns the number of lanes that had some.
func (r *shared) readLanes(count int) (lanes int, err error) {
	ctx, cancel := context.WithTimeout(r.ctx, blockFor+blockSlack)
	defer cancel()
	keys := append(slices.Clone(r.topic.lanes), r.bell())
	ids := make([]string, len(keys))
	for i := range ids {
		ids[i] = ">"
	}
	read := r.driver.client.B().Xreadgroup().Group(r.group, r.name).Count(int64(count)).Block(blockFor.Milliseconds()).
		Streams().Key(keys...).Id(ids...).Build()
	begun := r.driver.now()
	answer, err := r.driver.client.Do(undated{ctx}, read).ToMessage()
	if rueidis.IsRedisNil(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	at := r.driver.now()
	if at-begun < blockFor/100 { // it has not waited
		at = begun
	}
	err = streams(answer, func(key string, entries []rueidis.RedisMessage) error {
		lane := slices.Index(r.topic.lanes, key)
		if lane < 0 {
			r.rung(entries)
			return nil
		}
		lanes++
		b := newBatch(len(entries))
		for _, e := range entries {
			if err := b.add(&r.reader, lane, 1, e, at); err != nil {
				return err
			}
		}
		r.push(b)
		return nil
	})
	return lanes, err
}

// rung has the keeper look around, and forgets the ring.
func (r *shared) rung(entries []rueidis.RedisMessage) {
	kick(r.bells)
	b := r.driver.client.B()
	ack := b.Xack().Key(r.bell()).Group(r.group).Id()
	for _, e := range entries {
		if pair, err := e.ToArray(); err == nil && len(pair) > 0 {
			id, _ := pair[0].ToString()
			ack = ack.Id(id)
		}
	}
	ctx, cancel := r.call()
	defer cancel()
	_ = r.driver.client.Do(undated{ctx}, ack.Build()).Error() // it matters to nobody
}

package redispubsub

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/backstay-go/backstay/pubsub"
)

// publishWindow is the number of commands that are sent before their answers are awaited. More cost memory and gain
// nothing.
const publishWindow = 1024

// Publish appends the messages to their lanes, pipelined, and waits for the answers. An entry of the result that wraps
// pubsub.ErrInDoubt was perhaps sent and not answered; any other was not accepted. Messages of one key are stored in the
// order of the call. When the answers to a window of 1024 messages are lost, those after it are not sent.
func (d *Driver) Publish(ctx context.Context, msgs []pubsub.Message) []error {
	if len(msgs) == 0 {
		return nil
	}
	if t, known := d.topics.Load(msgs[0].Topic); known && len(msgs) == 1 && d.cfg.Replicas == 0 && !d.closed.Load() {
		return d.publishOne(ctx, t.(*topic), msgs)
	}
	p := &publication{driver: d, msgs: msgs, enc: encoder{client: d.client}}
	if d.closed.Load() {
		p.fail(0, pubsub.ErrClosed)
	} else {
		p.run(ctx)
	}
	return p.report()
}

// publishOne is the short way of a single message. Those of many goroutines share rueidis's pipeline.
func (d *Driver) publishOne(ctx context.Context, t *topic, msgs []pubsub.Message) []error {
	err := ctx.Err()
	if err == nil {
		enc := encoder{client: d.client}
		err = outcome(d.client.Do(undated{ctx}, enc.add(t, &msgs[0])).Error())
	}
	if err == nil {
		d.counts.published.Add(1)
		return nil
	}
	p := &publication{driver: d, msgs: msgs, errs: []error{err}}
	return p.report()
}

// publication is one call of Publish.
type publication struct {
	driver *Driver
	msgs   []pubsub.Message
	errs   []error // nil while all is well
	enc    encoder
	cmds   rueidis.Commands
	topic  *topic // of cmds
}

func (p *publication) run(ctx context.Context) {
	for first := 0; first < len(p.msgs); {
		if err := ctx.Err(); err != nil {
			p.fail(first, err)
			return
		}
		next, err := p.fill(ctx, first)
		if err != nil {
			p.note(first, err)
			first++
			continue
		}
		if !p.send(ctx, first, next) {
			p.fail(next, fmt.Errorf("not sent: the messages before it have no answer"))
			return
		}
		first = next
	}
}

// fill makes the commands of a window, which ends where a topic begins that is not known yet or, with Replicas, another
// topic: the answer to WAIT is about one node.
func (p *publication) fill(ctx context.Context, first int) (next int, err error) {
	p.cmds = p.cmds[:0]
	for next = first; next < len(p.msgs) && next-first < publishWindow; next++ {
		m := &p.msgs[next]
		if next == first || m.Topic != p.topic.name {
			if next > first && p.driver.cfg.Replicas > 0 {
				break
			}
			t, err := p.driver.ensureTopic(ctx, m.Topic)
			if err != nil && next > first {
				break // it is the first of the next window then
			}
			if err != nil {
				return next, err
			}
			p.topic = t
		}
		p.cmds = append(p.cmds, p.enc.add(p.topic, m))
	}
	return next, nil
}

// send reports false when what follows must not be sent, or a key might lose its order.
func (p *publication) send(ctx context.Context, first, next int) bool {
	var answers []rueidis.RedisResult
	switch {
	case p.driver.cfg.Replicas > 0:
		answers = p.replicated(ctx, next-first)
	case len(p.cmds) == 1:
		err := p.driver.client.Do(undated{ctx}, p.cmds[0]).Error()
		p.note(first, outcome(err))
		return true
	default:
		answers = p.driver.client.DoMulti(undated{ctx}, p.cmds...)
	}
	lost := false
	for i := range next - first {
		err := answers[i].Error()
		if err != nil {
			_, answered := rueidis.IsRedisErr(err)
			lost = lost || !answered
		}
		p.note(first+i, outcome(err))
	}
	if len(answers) > next-first {
		p.awaited(answers[next-first], first, next)
	}
	return !lost
}

// replicated sends the commands and WAIT after them, on one connection, since WAIT is about what was sent on its own.
func (p *publication) replicated(ctx context.Context, n int) (answers []rueidis.RedisResult) {
	cfg := p.driver.cfg
	_ = p.driver.client.Dedicated(func(c rueidis.DedicatedClient) error {
		wait := c.B().Arbitrary("WAIT", strconv.Itoa(cfg.Replicas), strconv.FormatInt(cfg.ReplicaTimeout.Milliseconds(), 10)).Blocking()
		answers = c.DoMulti(undated{ctx}, append(p.cmds, wait)...)
		return nil
	})
	return answers[:n+1]
}

// awaited puts in doubt what too few replicas have.
func (p *publication) awaited(answer rueidis.RedisResult, first, next int) {
	got, err := answer.AsInt64()
	want := p.driver.cfg.Replicas
	if err == nil && got >= int64(want) {
		return
	}
	if err == nil {
		err = fmt.Errorf("%d of %d replicas have it", got, want)
	}
	for i := first; i < next; i++ {
		if p.errs == nil || p.errs[i] == nil {
			p.note(i, &lostError{err})
		}
	}
}

func (p *publication) note(i int, err error) {
	if err == nil {
		return
	}
	if p.errs == nil {
		p.errs = make([]error, len(p.msgs))
	}
	p.errs[i] = err
}

// fail notes err for everything from first on.
func (p *publication) fail(first int, err error) {
	for i := first; i < len(p.msgs); i++ {
		p.note(i, err)
	}
}

// report counts, and says in every error where it comes from.
func (p *publication) report() []error {
	d := p.driver
	if p.errs == nil {
		d.counts.published.Add(uint64(len(p.msgs)))
		return nil
	}
	for i, err := range p.errs {
		switch err.(type) {
		case nil:
			d.counts.published.Add(1)
			continue
		case *lostError:
			d.counts.inDoubt.Add(1)
		default:
			d.counts.refused.Add(1)
		}
		p.errs[i] = fmt.Errorf("redispubsub %q: topic %s: %w", d.cfg.Name, p.msgs[i].Topic, err)
	}
	return p.errs
}

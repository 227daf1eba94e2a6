package redispubsub

import (
	"context"
	"strconv"
	"strings"
	"time"
)

const (
	// tidyEvery is how often topics are trimmed, and ended what was temporary. One client at a time does it for a topic.
	tidyEvery = 5 * time.Second
	// forgetAfter is how long the consumer of a member that has died stays, once others have taken over what it had.
	forgetAfter = time.Hour
)

// tidy looks after the topics in use until the driver closes.
func (d *Driver) tidy() {
	ticker := time.NewTicker(tidyEvery)
	defer ticker.Stop()
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-ticker.C:
		}
		d.topics.Range(func(_, t any) bool {
			d.tidyTopic(d.ctx, t.(*topic))
			return d.ctx.Err() == nil
		})
	}
}

// tidyTopic does what is due; what fails is tried again the next time.
func (d *Driver) tidyTopic(ctx context.Context, t *topic) {
	ctx, cancel := context.WithTimeout(ctx, tidyEvery)
	defer cancel()
	b := d.client.B()
	lock := b.Set().Key(t.tag + ":tidy").Value("1").Nx().PxMilliseconds(tidyEvery.Milliseconds() - 500).Build()
	if d.client.Do(undated{ctx}, lock).Error() != nil { // somebody else did it
		return
	}
	_, _ = d.Trim(ctx, t.name)
	meta, err := d.client.Do(undated{ctx}, b.Hgetall().Key(t.meta()).Build()).AsStrMap()
	if err != nil {
		return
	}
	for field, mode := range meta {
		if group, ok := strings.CutPrefix(field, "group:"); ok && isTemporary(mode) {
			d.endGroup(ctx, t, group, "")
		}
	}
}

// endGroup ends a temporary group that nobody holds but member.
func (d *Driver) endGroup(ctx context.Context, t *topic, group, member string) {
	keys := append([]string{t.meta(), t.present(group), t.members(group), t.state(group)}, t.lanes...)
	_, _ = d.attend(ctx, endScript, keys, group, member)
}

// Trim removes from the topic what MaxAge and MaxLength do not keep, and returns the number of messages. The driver does
// it every five seconds for the topics that it uses. Without TrimUnhandled nothing goes that some group has not handled,
// nor anything of a topic without groups. It blocks until the server has answered or ctx is done.
func (d *Driver) Trim(ctx context.Context, name string) (int, error) {
	t := newTopic(d.cfg, name)
	length := int64(0)
	if d.cfg.MaxLength > 0 {
		length = max(d.cfg.MaxLength/int64(d.cfg.Lanes), 1)
	}
	unhandled := "0"
	if d.cfg.TrimUnhandled {
		unhandled = "1"
	}
	total := 0
	for _, lane := range t.lanes {
		for {
			answer, err := d.attend(ctx, trimScript, []string{lane}, strconv.FormatInt(d.cfg.MaxAge.Milliseconds(), 10),
				strconv.FormatInt(length, 10), unhandled, strconv.FormatInt(forgetAfter.Milliseconds(), 10))
			if err != nil {
				return total, err
			}
			n, err := answer.AsInt64()
			if err != nil {
				return total, err
			}
			total += int(n)
			d.counts.trimmed.Add(uint64(n))
			if n < 1000 || length == 0 { // a long lane is trimmed in steps, so that the server can do something else
				break
			}
		}
	}
	return total, nil
}

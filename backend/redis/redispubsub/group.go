package redispubsub

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

const maxGroup = 200

// Open makes the group in all lanes of the topic, or joins the one that exists, and returns a member of it. It fails
// with ErrMismatch when the group exists with the other value of Ordered or Temporary. Start counts only for a new
// group. Of the Leases of a group's members the longest holds for messages that others may take over.
func (d *Driver) Open(ctx context.Context, s pubsub.Subscription) (pubsub.Receiver, error) {
	if d.closed.Load() {
		return nil, pubsub.ErrClosed
	}
	if !isToken(s.Group) || s.Group == "" || len(s.Group) > maxGroup {
		return nil, fmt.Errorf("redispubsub %q: group %q: it must be 1 to %d letters, digits, '_' or '-'", d.cfg.Name, s.Group, maxGroup)
	}
	if s.Lease < time.Millisecond {
		return nil, fmt.Errorf("redispubsub %q: Subscription.Lease is %s: it must be 1ms or more", d.cfg.Name, s.Lease)
	}
	d.topics.Delete(s.Topic) // the server may have been flushed
	t, err := d.ensureTopic(ctx, s.Topic)
	if err != nil {
		return nil, fmt.Errorf("redispubsub %q: %w", d.cfg.Name, err)
	}
	m := newMember(d, t, s)
	if err := m.openGroup(ctx, s); err != nil {
		return nil, fmt.Errorf("redispubsub %q: group %s of topic %s: %w", d.cfg.Name, s.Group, s.Topic, err)
	}
	if s.Ordered {
		return startOrdered(m, s), nil
	}
	return startShared(m), nil
}

// mode is how a group is kept.
func mode(s pubsub.Subscription) string {
	name := "unordered"
	if s.Ordered {
		name = "ordered"
	}
	if s.Temporary {
		name = "temporary, " + name
	}
	return name
}

func isTemporary(mode string) bool { return strings.HasPrefix(mode, "temp") }

// startID is where a new group begins, as XGROUP CREATE has it: behind that entry.
func startID(s pubsub.Subscription) string {
	if at, timed := s.StartTime(); timed {
		return strconv.FormatInt(max(at.UnixMilli()-1, 0), 10) + "-18446744073709551615"
	}
	if s.Start == "start" {
		return "0"
	}
	return "$"
}

func (m *member) openGroup(ctx context.Context, s pubsub.Subscription) error {
	keys := append([]string{m.topic.meta(), m.topic.present(m.group), m.topic.members(m.group), m.topic.state(m.group)}, m.topic.lanes...)
	answer, err := m.driver.attend(ctx, openScript, keys, m.group, mode(s), startID(s), millis(s.Lease))
	if err != nil {
		return err
	}
	if found, err := answer.ToString(); err != nil || found != mode(s) {
		return fmt.Errorf("%w: it is to be %s, found %s", ErrMismatch, mode(s), found)
	}
	if !m.temporary {
		return nil
	}
	_, err = m.beat(ctx, false, nil) // or others would end it
	return err
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

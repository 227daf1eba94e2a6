package kafkapubsub

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/backstay-go/backstay/pubsub"
)

// Lag implements pubsub.Lagger: the records of all partitions behind the group's commits, so that those which members
// have in hand are Waiting, and a few that are settled out of order or not yet committed. Transactions' markers and records
// that compaction has removed count as well.
func (r *receiver) Lag(ctx context.Context) (pubsub.Lag, error) {
	lag, err := r.driver.lag(ctx, r.name, r.group)
	if err != nil {
		return pubsub.Lag{}, r.driver.errorf(r.topic, err)
	}
	return lag, nil
}

func (d *Driver) lag(ctx context.Context, name, group string) (pubsub.Lag, error) {
	commits, err := d.admin.FetchOffsets(ctx, group)
	if err == nil {
		err = commits.Error()
	}
	if err != nil {
		return pubsub.Lag{}, err
	}
	starts, err1 := d.admin.ListStartOffsets(ctx, name)
	ends, err2 := d.admin.ListEndOffsets(ctx, name)
	if err := errors.Join(err1, err2, starts.Error(), ends.Error()); err != nil {
		return pubsub.Lag{}, err
	}
	lag := pubsub.Lag{Unsettled: -1}
	ends.Each(func(end kadm.ListedOffset) {
		var from int64
		if start, ok := starts.Lookup(name, end.Partition); ok {
			from = start.Offset // of a partition that was added since, or whose old records are gone
		}
		if at, ok := commits.Lookup(name, end.Partition); ok {
			from = max(from, at.At)
		}
		lag.Waiting += max(end.Offset-from, 0)
	})
	return lag, nil
}

// Responders returns the number of members that the group has, as its broker counts them: from a member's first Receive on,
// until it leaves, or has been silent for Config.SessionTimeout. It blocks until the broker has answered or ctx is done.
func (d *Driver) Responders(ctx context.Context, topic, group string) (int, error) {
	if d.closed.Load() {
		return 0, pubsub.ErrClosed
	}
	id := d.cfg.groupID(topic, group)
	described, err := d.admin.DescribeGroups(ctx, id)
	found := described[id]
	if err == nil {
		err = found.Err
	}
	switch {
	case errors.Is(err, kerr.GroupIDNotFound):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("kafkapubsub %q: group %s of topic %s: %w", d.cfg.Name, group, topic, err)
	}
	return len(found.Members), nil
}

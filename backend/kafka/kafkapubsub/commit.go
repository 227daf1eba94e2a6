package kafkapubsub

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// position is what is committed of a lane.
type position struct {
	lane     *lane
	floor    int64
	metadata string
	changed  uint64
	acks     uint64
}

// commit tells the brokers what is settled: of the lanes given, or of those that have changed. It returns when ctx is done,
// even though the client may still try.
func (r *receiver) commit(ctx context.Context, s *session, lanes []*lane) error {
	select {
	case r.commits <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	r.mu.Lock()
	positions := r.open(s, lanes)
	r.mu.Unlock()
	if len(positions) == 0 {
		<-r.commits
		return nil
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-r.commits }()
		done <- r.send(ctx, s, positions)
	}()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	r.driver.counts.commits.Add(1)
	if err != nil {
		r.driver.counts.commitFailed.Add(1)
	}
	return err
}

// send makes one commit.
func (r *receiver) send(ctx context.Context, s *session, positions map[int32]*position) (failed error) {
	offsets := make(map[int32]kgo.EpochOffset, len(positions))
	for p, at := range positions {
		offsets[p] = kgo.EpochOffset{Epoch: -1, Offset: at.floor}
	}
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				p := &req.Topics[i].Partitions[j]
				p.Metadata = &positions[p.Partition].metadata
			}
		}
		return nil
	})
	s.client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{r.name: offsets},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
			failed = r.committed(positions, resp, err)
		})
	return failed
}

// open are the positions to commit.
func (r *receiver) open(s *session, lanes []*lane) map[int32]*position {
	if lanes == nil && r.session == s {
		for _, l := range r.lanes {
			if l.changed != l.committed {
				lanes = append(lanes, l)
			}
		}
	}
	positions := make(map[int32]*position)
	for _, l := range lanes {
		if l.floor >= 0 && !l.gone {
			positions[l.partition] = &position{l, l.floor, l.metadata(), l.changed, l.acks}
		}
	}
	return positions
}

// committed notes what the brokers have accepted, and returns why they have not accepted the rest.
func (r *receiver) committed(positions map[int32]*position, resp *kmsg.OffsetCommitResponse, err error) error {
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	accepted := 0
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			at := positions[p.Partition]
			if refusal := kerr.ErrorForCode(p.ErrorCode); refusal != nil || at == nil {
				err = errors.Join(err, refusal)
				continue
			}
			accepted++
			at.lane.committed = max(at.lane.committed, at.changed)
			at.lane.confirmed = max(at.lane.confirmed, at.acks)
		}
	}
	if err == nil && accepted < len(positions) {
		err = errors.New("the answer to a commit lacks partitions")
	}
	return err
}

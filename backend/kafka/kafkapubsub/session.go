package kafkapubsub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/backstay-go/backstay/pubsub"
)

// session is a membership of the group.
type session struct {
	r      *receiver
	client *kgo.Client
	over   context.Context // done when the session is to end
	end    context.CancelFunc
	ended  bool
	pulse  pulse
}

// join makes the client that joins the group. It does not wait for the brokers.
func (r *receiver) join() error {
	cfg := r.driver.cfg
	s := &session{r: r}
	s.over, s.end = context.WithCancel(context.Background())
	timeout := cfg.session(r.lease)
	rebalance := max(cfg.RevokeTimeout, 0) + 30*time.Second
	s.pulse.session, s.pulse.rebalance = timeout, rebalance
	own := []kgo.Opt{
		kgo.ConsumerGroup(r.group), kgo.ConsumeTopics(r.name), kgo.DisableAutoCommit(),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(timeout), kgo.HeartbeatInterval(min(timeout/10, 3*time.Second)),
		kgo.RebalanceTimeout(rebalance), kgo.WithHooks(&s.pulse),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // of partitions added since the group began
		kgo.OnPartitionsAssigned(s.assigned), kgo.OnPartitionsRevoked(s.revoked), kgo.OnPartitionsLost(s.lost),
	}
	client, err := kgo.NewClient(slices.Concat(defaults, r.driver.opts, own)...)
	if err != nil {
		s.end()
		return r.driver.errorf(r.topic, err)
	}
	s.client, r.session = client, s
	return nil
}

// endSession commits and leaves the group.
func (r *receiver) endSession(s *session) error {
	r.ending.Lock()
	defer r.ending.Unlock()
	if s.ended {
		return nil
	}
	s.ended = true
	s.end()
	r.mu.Lock()
	all := make([]*lane, 0, len(r.lanes))
	for _, l := range r.lanes {
		l.leaving.Store(true)
		all = append(all, l)
	}
	r.changed.Broadcast()
	r.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	err := r.commit(ctx, s, all)
	r.mu.Lock()
	open := r.drop(all)
	if r.session == s {
		r.session, r.queue = nil, nil
	}
	r.wake()
	r.mu.Unlock()
	s.leave(ctx)
	if err != nil && open > 0 {
		return fmt.Errorf("kafkapubsub %q: topic %s: acknowledgements of %d partitions: %w: %w",
			r.driver.cfg.Name, r.topic, open, pubsub.ErrInDoubt, err)
	}
	return nil
}

// leave says goodbye to the group, without which the session times out, and closes the client. When ctx is done it goes on
// in the background: a client waits for a connection that hangs.
func (s *session) leave(ctx context.Context) {
	left := make(chan struct{})
	go func() {
		defer close(left)
		_ = s.client.LeaveGroupContext(ctx)
		s.client.Close()
	}()
	select {
	case <-left:
	case <-ctx.Done():
	}
}

// drop ends lanes, and returns how many of them have acknowledgements that the brokers may not know of.
func (r *receiver) drop(lanes []*lane) (open int) {
	for _, l := range lanes {
		if l.gone {
			continue
		}
		for p := l.first; p < l.end; p++ {
			l.unhold(l.at(p)) // and void
		}
		if l.acks != l.confirmed {
			open++
		}
		l.leaving.Store(true)
		l.gone = true
		r.epochs[l.partition] = l.epoch
		if r.lanes[l.partition] == l {
			delete(r.lanes, l.partition)
		}
	}
	return open
}

// assigned is called before the client fetches anything of the partitions.
func (s *session) assigned(ctx context.Context, client *kgo.Client, added map[string][]int32) {
	partitions := added[s.r.name]
	if len(partitions) == 0 {
		return
	}
	client.ResumeFetchPartitions(map[string][]int32{s.r.name: partitions})
	known := s.positions(ctx, client)
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	// A poll that has begun before may still bring records of an earlier time, which must not get into the new lanes.
	if before := r.polls; r.polling {
		r.stopPoll()
		for r.polls == before {
			r.changed.Wait()
		}
	}
	if r.session != s {
		return
	}
	for _, p := range partitions {
		l := &lane{partition: p, pulse: &s.pulse, epoch: r.epochs[p] + 1, floor: -1, expect: -1, high: -1, fresh: true}
		if at, ok := known.Lookup(r.name, p); ok && at.Err == nil && at.At >= 0 {
			l.past = decodePast(at.At, at.Metadata)
			l.floor, l.expect, l.high = at.At, at.At, l.past.high
		}
		r.lanes[p] = l
	}
}

// positions are the group's commits. Without them records may be repeated, and nothing is lost.
func (s *session) positions(ctx context.Context, client *kgo.Client) kadm.OffsetResponses {
	admin := kadm.NewClient(client)
	for ctx.Err() == nil {
		found, err := admin.FetchOffsets(ctx, s.r.group)
		if err == nil && found.Ok() {
			return found
		}
		select {
		case <-ctx.Done():
		case <-s.over.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// revoked lets running handlers finish, commits, and gives the partitions away.
func (s *session) revoked(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	r := s.r
	r.mu.Lock()
	lanes := r.chosen(s, gone)
	if len(lanes) == 0 {
		r.mu.Unlock()
		return
	}
	deadline := now() + max(r.driver.cfg.RevokeTimeout, 0)
	for r.busy(lanes) && !r.closed && r.session == s && now() < deadline {
		r.changed.Wait() // keep broadcasts with every tick
	}
	if r.busy(lanes) && !r.closed {
		r.driver.counts.overrun.Add(1)
	}
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	_ = r.commit(ctx, s, lanes)
	r.mu.Lock()
	r.drop(lanes)
	r.mu.Unlock()
}

// lost is called when the partitions are somebody else's already.
func (s *session) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(r.chosen(s, gone))
	r.changed.Broadcast()
}

// chosen are the lanes of the partitions, from which no handler begins any more.
func (r *receiver) chosen(s *session, partitions map[string][]int32) []*lane {
	var lanes []*lane
	if r.session != s {
		return nil
	}
	for _, p := range partitions[r.name] {
		if l := r.lanes[p]; l != nil {
			l.leaving.Store(true)
			lanes = append(lanes, l)
		}
	}
	return lanes
}

// busy reports whether a verdict is awaited.
func (r *receiver) busy(lanes []*lane) bool {
	return slices.ContainsFunc(lanes, func(l *lane) bool { return l.held > 0 })
}

// fault looks at an error that a poll brought. Most pass by themselves, since the client tries again.
func (r *receiver) fault(l *lane, err error) {
	if loss, ok := errors.AsType[*kgo.ErrDataLoss](err); ok {
		if l != nil && loss.ResetTo < l.expect {
			l.reset()
		}
		return
	}
	for _, final := range []error{
		kerr.GroupAuthorizationFailed, kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.SaslAuthenticationFailed,
		kerr.InvalidSessionTimeout, kerr.InconsistentGroupProtocol, kerr.InvalidGroupID, kerr.UnsupportedVersion,
		kerr.GroupMaxSizeReached, // but no unknown topic: one that was just made is, to some brokers, for a moment
	} {
		if errors.Is(err, final) {
			r.err = err
		}
	}
}

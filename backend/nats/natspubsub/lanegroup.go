package natspubsub

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/backstay-go/backstay/pubsub"
)

// openLanes joins an ordered group, or makes its records.
func (d *Driver) openLanes(ctx context.Context, s pubsub.Subscription, t *topic, here presence) (pubsub.Receiver, error) {
	stream, err := d.js.Stream(ctx, d.cfg.streamName(s.Topic))
	if err != nil {
		return nil, err
	}
	switch _, err := stream.Consumer(ctx, s.Group); {
	case err == nil:
		return nil, mixed(s)
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		return nil, err
	}
	err = d.checkNoLanes(ctx, s, !s.Temporary, fmt.Errorf("%w: Subscription.Temporary is %v, found %v", ErrMismatch, s.Temporary, !s.Temporary))
	if err != nil {
		return nil, err
	}
	store, err := d.ensureLanes(ctx, s, t)
	if err != nil {
		return nil, err
	}
	info := stream.CachedInfo()
	first := laneRecord{Stream: info.Created}
	if at, timed := s.StartTime(); timed {
		first.Start = &at
	} else if s.Start != "start" {
		first.Floor = info.State.LastSeq
	}
	errs := make([]error, d.cfg.Lanes)
	var wg sync.WaitGroup
	for lane := range d.cfg.Lanes {
		wg.Go(func() { errs[lane] = d.ensureLane(ctx, store, s, stream, lane, first) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return newLaneReceiver(d, s, t, store, first, here), nil
}

// ensureLane makes the record of a lane unless there is one.
func (d *Driver) ensureLane(ctx context.Context, store *laneStore, s pubsub.Subscription, stream jetstream.Stream, lane int, first laneRecord) error {
	_, revision, err := store.get(ctx, lane)
	if err != nil || revision > 0 {
		return err
	}
	former := formerConsumer(s.Group, lane)
	c, err := stream.Consumer(ctx, former)
	switch {
	case err == nil:
		first.Floor, first.Start = c.CachedInfo().AckFloor.Stream, nil
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		return err
	}
	if _, errPut := store.put(ctx, lane, first, 0); errPut != nil && !errors.Is(errPut, errConflict) {
		return errPut
	}
	if err == nil {
		err = stream.DeleteConsumer(ctx, former)
	}
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil
	}
	return err
}

// checkNoLanes returns found if the group has lanes of that kind.
func (d *Driver) checkNoLanes(ctx context.Context, s pubsub.Subscription, temporary bool, found error) error {
	s.Temporary = temporary
	store, err := d.findLanes(ctx, s)
	if err != nil || store == nil {
		return err
	}
	if _, revision, err := store.get(ctx, 0); err != nil || revision == 0 {
		return err
	}
	return found
}

// formerConsumer is the consumer that had a lane before lanes had owners. Its place is the lane's first floor.
func formerConsumer(group string, lane int) string { return group + "+" + strconv.Itoa(lane) }

package saga

import (
	"context"
	"errors"
	"time"
)

// errRolledBack ends a transaction whose attempt did not succeed.
var errRolledBack = errors.New("saga: the attempt failed")

// inTx makes an attempt within the transaction that records it. An attempt that fails is rolled back and recorded as usual.
// Where it is not known whether the transaction was committed it is made again: if the first one was, the second finds its
// token gone and leaves no trace.
func (s *session) inTx(h *hold, p *plan, i int, began time.Time) bool {
	s.exclusively(func() { h.setInTx(true) })
	end := began.Add(s.lease)
	for pause := pollMin; !h.isLost() && time.Now().Before(end); pause = min(2*pause, time.Second) {
		res, c, recorded, err := s.commitInTx(h, p, i, began)
		switch {
		case res.err != nil:
			h.setInTx(false)
			return s.conclude(h, s.prepare(h, p, i, began, res))
		case err == nil && recorded:
			s.recordedInTx(h, c, began)
			return s.goOn(c)
		case err == nil:
			h.lose()
		default:
			s.r.trouble("CommitInTx", err)
			h.rest(pause)
		}
	}
	h.lose()
	s.lostHold(h)
	return false
}

func (s *session) commitInTx(h *hold, p *plan, i int, began time.Time) (res result, c *change, recorded bool, err error) {
	ctx, cancel := context.WithTimeout(s.detached, s.lease)
	defer cancel()
	recorded, err = s.r.store.(TxStore).CommitInTx(ctx, func(tx context.Context) ([]Transition, error) {
		h.tx = tx
		res = s.execute(h, p, i, time.Now())
		h.tx = nil
		if res.err != nil {
			return nil, errRolledBack
		}
		c = s.prepare(h, p, i, began, res)
		c.t.Token = h.in.Token
		return append([]Transition{c.t}, c.more...), nil
	})
	return res, c, recorded, err
}

func (s *session) recordedInTx(h *hold, c *change, began time.Time) {
	s.exclusively(func() {
		h.in.Token++
		if c.t.Hold > 0 {
			h.renew(began)
		} else {
			s.forget(h)
		}
		h.setInTx(false)
	})
	h.note(c)
	s.r.recorded(h.in, c.t.Event, h)
}

package main

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/console"
	"github.com/backstay-go/backstay/timeout"
)

// A spread is a service of several instances, of which each request goes to the next one in turn. Each has a breaker of its
// own, so that one which is dead or hangs is left out until a probe finds it well again. Safe for concurrent use.
type spread struct {
	peer      *peer
	instances []backstay.Func[call, answer]
	turn      atomic.Uint32
	objects   []console.Object // that there are to look at
}

// newSpread is the service at these addresses behind the policies. attempt bounds a request to one instance of several; to
// the only one nothing is done but what the policies do.
func newSpread(name string, bases []string, client *http.Client, attempt time.Duration, policies ...backstay.Policy) *spread {
	s := &spread{}
	if len(bases) == 1 {
		s.peer = newPeer(name, bases[0], client, policies...)
		return s
	}
	for i, base := range bases {
		instance := name + "/" + strconv.Itoa(i+1)
		fuse := breaker.New(breaker.Config{Name: instance, ConsecutiveFailures: 5, OpenDelay: 250 * time.Millisecond, MaxOpenDelay: time.Second, Probes: 2, ProbeTimeout: attempt})
		limit := timeout.New(timeout.Config{Name: instance, After: attempt})
		s.instances = append(s.instances, newPeer(instance, base, client, fuse, limit).send)
		s.objects = append(s.objects, fuse, limit)
	}
	s.peer = &peer{name: name, send: backstay.Wrap(s.send, policies...)}
	return s
}

// send asks the next instance whose breaker lets it. When none does, the last rejection says so.
func (s *spread) send(ctx context.Context, c call) (a answer, err error) {
	n := uint32(len(s.instances))
	first := s.turn.Add(1)
	for i := range n {
		a, err = s.instances[(first+i)%n](ctx, c)
		if !errors.Is(err, breaker.ErrOpen) {
			return a, err
		}
	}
	return a, err
}

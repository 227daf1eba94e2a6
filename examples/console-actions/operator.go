package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"

	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/console"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/saga"
)

// operator is who may act. A real service asks its own sign-in.
const operator = "operator"

// actions is what operators may do, each with the object's own method.
func (s *service) actions() console.Option {
	return console.WithActions(s.authorize,
		console.On("force_open", "Force open", mode("force_open")),
		console.On("force_closed", "Force closed", mode("force_closed")),
		console.On("automatic", "Leave it to itself", mode("auto")),
		console.On("requeue", "Requeue parked messages", requeue),
		console.OnInput("retry", "Retry a stuck saga", "ID of the saga", func(ctx context.Context, r *saga.Runner, id string) error {
			return r.Retry(ctx, id)
		}),
	)
}

// authorize is asked for each attempt, once the console knows that it comes from its own page. It is also the place to write down
// who did what.
func (s *service) authorize(r *http.Request, _ console.Attempt) error {
	if !s.signedIn(r) {
		return errors.New("only operators may do this")
	}
	return nil
}

func (s *service) signedIn(r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	return ok && user == operator && subtle.ConstantTimeCompare([]byte(password), []byte(s.cfg.password)) == 1
}

// signIn makes browsers ask for the password. They send it with what other sites' pages make them send, too: that is what the console
// guards against by itself.
func (s *service) signIn(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.signedIn(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="console"`)
			http.Error(w, "only operators may see this", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func mode(mode string) func(context.Context, *breaker.Breaker) error {
	return func(_ context.Context, b *breaker.Breaker) error {
		cfg := b.Config()
		cfg.Mode = mode
		return b.Reconfigure(cfg)
	}
}

// relayOf is a relay together with the store that it empties, where parked messages are.
type relayOf struct {
	*outbox.Relay
	store outbox.Inspector
}

// requeue gives all parked messages another round of attempts.
func requeue(ctx context.Context, r *relayOf) error {
	total := 0
	for after := int64(0); ; {
		parked, err := r.store.Parked(ctx, after, 100)
		if err != nil {
			return err
		}
		if len(parked) == 0 {
			break
		}
		seqs := make([]int64, len(parked))
		for i, p := range parked {
			seqs[i] = p.Record.Seq
		}
		n, err := r.store.Requeue(ctx, seqs...)
		if err != nil {
			return err
		}
		total += n
		after = seqs[len(seqs)-1]
	}
	if total == 0 {
		return errors.New("nothing is parked")
	}
	r.Notify()
	return nil
}

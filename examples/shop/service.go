package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"time"
)

const (
	maxBody    = 1 << 20 // bytes of a request; the largest real invoice has about a tenth
	retryLater = time.Second
)

// A refusal is an answer other than success, on both sides of an HTTP call: a handler returns one to send it, a peer
// returns one that it received. Those of class 4xx are for good unless they say when to come back.
type refusal struct {
	Code   int
	Reason string
	Wait   time.Duration // when another try may succeed; zero: unknown
}

func (r *refusal) Error() string             { return r.Reason }
func (r *refusal) Permanent() bool           { return r.Code < 500 && r.Wait == 0 }
func (r *refusal) RetryAfter() time.Duration { return r.Wait }

func refuse(code int, format string, args ...any) error {
	return &refusal{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// endpoint makes a handler of a function from a request to what is sent as JSON with the given status.
func endpoint(code int, fn func(r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := fn(r)
		if err != nil {
			refused := asRefusal(err)
			if refused.Wait > 0 {
				w.Header().Set("Retry-After", strconv.Itoa(int(max(refused.Wait, time.Second).Seconds())))
			}
			reply(w, refused.Code, map[string]string{"error": refused.Reason})
			return
		}
		reply(w, code, body)
	}
}

// asRefusal is what the caller is told about err. Anything unforeseen is a 503: every operation of the shop is
// idempotent, so it is always right to try again.
func asRefusal(err error) *refusal {
	if refused, ok := errors.AsType[*refusal](err); ok && (refused.Code < 500 || refused.Wait > 0) {
		return refused
	}
	return &refusal{Code: http.StatusServiceUnavailable, Reason: err.Error(), Wait: retryLater}
}

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // a caller that has gone asks again
}

// read decodes the body of r and refuses what the type does not know.
func read[T any](r *http.Request) (T, error) {
	var v T
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return v, refuse(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", tooLarge.Limit)
		}
		return v, refuse(http.StatusBadRequest, "the body is not the JSON expected here: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return v, refuse(http.StatusBadRequest, "the body goes on after its JSON object")
	}
	return v, nil
}

var validID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func checkID(kind, id string) error {
	if !validID.MatchString(id) {
		return refuse(http.StatusUnprocessableEntity, "%s %q: an id has 1 to 64 letters, digits, dots, underscores or hyphens", kind, id)
	}
	return nil
}

// A server is one service's HTTP listener.
type server struct {
	http.Server
	base  string // URL
	close func() error
}

// listen serves h at addr until close, which answers the requests in hand, for at most five seconds, and takes no more.
// It may be called more than once.
func listen(addr string, h http.Handler) (*server, error) {
	var config net.ListenConfig
	l, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &server{base: "http://" + l.Addr().String()}
	s.Handler = http.MaxBytesHandler(h, maxBody)
	s.ReadHeaderTimeout = 5 * time.Second
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	s.close = sync.OnceValue(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err := s.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = s.Close()
		}
		if end := <-served; !errors.Is(end, http.ErrServerClosed) {
			err = errors.Join(err, end)
		}
		return err
	})
	return s, nil
}

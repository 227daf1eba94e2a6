package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/backstay-go/backstay/saga"
)

// play does what an operator would do on the page, and prints how it ends.
func play(ctx context.Context, out io.Writer, s *service, url string) error {
	defer http.DefaultClient.CloseIdleConnections()
	for _, step := range []struct{ kind, action, input string }{
		{"breaker", "force_open", ""}, {"relay", "requeue", ""}, {"saga", "retry", "t-1"},
	} {
		said, err := press(ctx, s, url, step.kind, step.action, step.input)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: %s\n", step.action, said)
	}
	fmt.Fprintln(out, "the breaker is", s.bank.State())
	if !s.cfg.actions {
		return nil
	}
	for key := ""; key != unlucky; {
		select {
		case key = <-s.published:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	fmt.Fprintln(out, "published:", unlucky)
	if _, err := saga.Wait(ctx, s.runner, s.trips, "t-1"); !errors.Is(err, saga.ErrCompensated) {
		return fmt.Errorf("the saga ended otherwise: %w", err)
	}
	fmt.Fprintln(out, "undone: t-1")
	return nil
}

// press does what a button of the page does, on the first object of the kind.
func press(ctx context.Context, s *service, url, kind, action, input string) (said string, err error) {
	id, err := find(ctx, s, url, kind)
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(map[string]string{"input": input})
	if err != nil {
		return "", err
	}
	return ask(ctx, s, http.MethodPost, fmt.Sprintf("%sapi/objects/%d/actions/%s", url, id, action), string(body))
}

func find(ctx context.Context, s *service, url, kind string) (id int, err error) {
	page, err := ask(ctx, s, http.MethodGet, url+"api", "")
	if err != nil {
		return 0, err
	}
	var now struct {
		Objects []struct {
			ID   int    `json:"id"`
			Kind string `json:"kind"`
		} `json:"objects"`
	}
	if err := json.Unmarshal([]byte(page), &now); err != nil {
		return 0, err
	}
	for _, o := range now.Objects {
		if o.Kind == kind {
			return o.ID, nil
		}
	}
	return 0, fmt.Errorf("there is no %s", kind)
}

func ask(ctx context.Context, s *service, method, url, body string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	r.SetBasicAuth(operator, s.cfg.password)
	r.Header.Set("X-Backstay-Action", "1") // which a page of another site cannot set
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	return strings.TrimSpace(string(all)), err
}

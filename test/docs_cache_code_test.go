package test

import (
	"bytes"
	"context"
	"errors"
	"log"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/cache"
	"github.com/backstay-go/backstay/retry"
)

func TestReadingThroughAsTheDocsShow(t *testing.T) {
	ctx, sku := t.Context(), "sku"
	fetchPrice, isNotFound := service{errDown}.Fetch, func(err error) bool { return errors.Is(err, errDown) }
	retrier, guard := retry.New(retry.Config{MaxAttempts: 1}), breaker.New(breaker.Config{})
	// docs:
	prices := cache.New(backstay.Wrap(fetchPrice, retrier, guard), cache.Config{
		Name:         "prices",
		TTL:          time.Minute,
		StaleIfError: time.Hour,
		NegativeTTL:  10 * time.Second,
	}, cache.WithNotFound(isNotFound))
	price, err := prices.Get(ctx, sku)
	// docs: end
	defer func() { require.NoError(t, prices.Close()) }()
	require.ErrorIs(t, err, cache.ErrNotFound)
	require.Empty(t, price)
	_, err = prices.Get(ctx, sku)
	require.ErrorIs(t, err, cache.ErrNotFound)
	require.EqualValues(t, 1, prices.Stats().Loads)
}

// committing is a transaction: what it has written counts once it is committed.
type committing struct {
	price *string
	err   error
}

func (tx committing) Commit() error {
	if tx.err == nil {
		*tx.price = "new"
	}
	return tx.err
}

func commit(ctx context.Context, tx committing, prices *cache.Cache[string, string], sku string) error {
	// docs:
	if err := tx.Commit(); err != nil {
		return err
	}
	return prices.Delete(ctx, sku)
	// docs: end
}

func TestDeletingAfterTheCommitAsTheDocsShow(t *testing.T) {
	ctx, sku, price := t.Context(), "sku", "old"
	prices := cache.New(func(context.Context, string) (string, error) { return price, nil }, cache.Config{})
	defer func() { require.NoError(t, prices.Close()) }()
	_, err := prices.Get(ctx, sku)
	require.NoError(t, err)
	require.Equal(t, errDown, commit(ctx, committing{&price, errDown}, prices, sku))
	require.Equal(t, 1, prices.Stats().Entries)
	require.NoError(t, commit(ctx, committing{&price, nil}, prices, sku))
	read, err := prices.Get(ctx, sku)
	require.NoError(t, err)
	require.Equal(t, "new", read)
}

func aside(ctx context.Context, pages *cache.Aside[string, string], render backstay.Func[string, string], id string) (string, error) {
	// docs:
	page, ok, err := pages.Get(ctx, id)
	if ok || err != nil {
		return page, err
	}
	grant, err := pages.Begin(ctx, id) // waits while somebody else makes the same page
	if err != nil {
		return "", err
	}
	if grant.Found {
		return grant.Entry.Value, nil
	}
	if page, err = render(ctx, id); err != nil {
		return "", errors.Join(err, grant.Lease.Release(ctx))
	}
	_, err = grant.Lease.Fill(ctx, cache.Entry[string]{Value: page})
	return page, err
	// docs: end
}

func TestFillingAsideAsTheDocsShow(t *testing.T) {
	pages := cache.NewAside[string, string](cache.Config{})
	defer func() { require.NoError(t, pages.Close()) }()
	rendered, failing := 0, errDown
	render := func(context.Context, string) (string, error) { rendered++; return "page", failing }
	get := func(ctx context.Context, id string) (string, error) { return aside(ctx, pages, render, id) }
	_, err := get(t.Context(), "1")
	require.ErrorIs(t, err, errDown)
	failing = nil
	for range 3 {
		page, err := get(t.Context(), "1")
		require.NoError(t, err)
		require.Equal(t, "page", page)
	}
	require.Equal(t, 2, rendered)
}

func TestWritingThroughAsTheDocsShow(t *testing.T) {
	ctx, id, profile, saved := t.Context(), "1", "mine", ""
	loadProfile := func(context.Context, string) (string, error) { return "", errDown }
	saveProfile := func(_ context.Context, _, profile string) error { saved = profile; return nil }
	// docs:
	profiles := cache.NewWriteThrough(loadProfile, saveProfile, cache.Config{Name: "profiles"})
	err := profiles.Set(ctx, id, profile)
	// docs: end
	defer func() { require.NoError(t, profiles.Close()) }()
	require.NoError(t, err)
	require.Equal(t, "mine", saved)
	read, err := profiles.Get(ctx, id)
	require.NoError(t, err)
	require.Equal(t, "mine", read)
}

// deadStore is a Store that cannot be reached.
type deadStore struct{}

func (deadStore) Get(context.Context, string) (e cache.Entry[string], ok bool, err error) {
	return e, false, errDown
}

func (deadStore) Lease(context.Context, string, uint64) (g cache.Grant[string], err error) {
	return g, errDown
}
func (deadStore) Set(context.Context, string, cache.Entry[string]) error { return errDown }
func (deadStore) Delete(context.Context, string) error                   { return errDown }
func (deadStore) Ping(context.Context) error                             { return errDown }

func TestTwoLevelsAsTheDocsShow(t *testing.T) {
	loadUser, store := service{}.Fetch, deadStore{}
	// docs:
	users := cache.New(loadUser, cache.Config{Name: "users", TTL: 10 * time.Minute, LocalTTL: 5 * time.Second}, cache.WithL2(store))
	// docs: end
	defer func() { require.NoError(t, users.Close()) }()
	user, err := users.Get(t.Context(), "1")
	require.NoError(t, err)
	require.Equal(t, "fetched", user)
	require.ErrorIs(t, users.Delete(t.Context(), "1"), cache.ErrStore)
}

func tellStale(ctx context.Context, prices *cache.Cache[string, string], sku string) {
	// docs:
	r, err := prices.Lookup(ctx, sku)
	if err == nil && r.Stale {
		log.Printf("the price of %s is %v old", sku, r.Age)
	}
	// docs: end
}

func TestLookingAtStaleValuesAsTheDocsShow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, sku := t.Context(), "sku"
		var down atomic.Bool
		prices := cache.New(func(context.Context, string) (string, error) {
			if down.Load() {
				return "", errDown
			}
			return "9.90", nil
		}, cache.Config{TTL: time.Minute, TTLJitter: -1, StaleIfError: time.Hour})
		defer func() { require.NoError(t, prices.Close()) }()
		_, err := prices.Get(ctx, sku)
		require.NoError(t, err)
		down.Store(true)
		<-time.After(2 * time.Minute)
		var said bytes.Buffer
		defer log.SetOutput(log.Writer())
		log.SetOutput(&said)
		tellStale(ctx, prices, sku)
		require.Contains(t, said.String(), "the price of sku is 2m0s old")
	})
}

func TestWeighingAsTheDocsShow(t *testing.T) {
	renderPage := service{}.Fetch
	// docs:
	pages := cache.New(renderPage, cache.Config{Name: "pages", MaxWeight: 64 << 20},
		cache.WithWeight(func(_, page string) int { return len(page) }))
	// docs: end
	defer func() { require.NoError(t, pages.Close()) }()
	page, err := pages.Get(t.Context(), "1")
	require.NoError(t, err)
	require.Equal(t, "fetched", page)
}

package policyhttp

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/backstay-go/backstay"
)

// PerHost returns a policy for [Transport] and [Handler] that applies the policy which set keeps for the request's host, in
// lower case and with the port if there is one: for a Transport that of the URL, for a Handler the Host header, which clients
// choose freely. Any set with a method Get will do, such as *breaker.Set[string]. It panics on nil.
func PerHost[P backstay.Policy](set interface{ Get(host string) P }) backstay.Policy {
	return PerKey(set, func(r *http.Request) string {
		if r.URL != nil && r.URL.Host != "" {
			return strings.ToLower(r.URL.Host)
		}
		return strings.ToLower(r.Host)
	})
}

// PerKey is [PerHost] for any key: a tenant, a route, a client's address. keyOf must be safe for concurrent use and is asked
// once for each attempt. It panics on nil.
func PerKey[K comparable, P backstay.Policy](set interface{ Get(key K) P }, keyOf func(*http.Request) K) backstay.Policy {
	if set == nil || keyOf == nil {
		panic("policyhttp: PerKey: the set or the function is nil")
	}
	return perKey[K, P]{set.Get, keyOf}
}

// keyed is a policy that depends on the request.
type keyed interface {
	of(r *http.Request) backstay.Policy
	repeats() bool
}

type perKey[K comparable, P backstay.Policy] struct {
	get   func(K) P
	keyOf func(*http.Request) K
}

func (k perKey[K, P]) of(r *http.Request) backstay.Policy { return k.get(k.keyOf(r)) }

func (k perKey[K, P]) repeats() bool {
	var p P
	return repeats(p)
}

// Do refuses: outside Transport and Handler there is no request to take the key from.
func (k perKey[K, P]) Do(context.Context, func(context.Context) error) error {
	return errors.New("policyhttp: PerKey and PerHost work in Transport and Handler only")
}

package console_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/console"
)

var routes = map[string][]string{
	"/":                               {"GET", "HEAD"},
	"/style.css":                      {"GET", "HEAD"},
	"/app.js":                         {"GET", "HEAD"},
	"/view.js":                        {"GET", "HEAD"},
	"/icon.svg":                       {"GET", "HEAD"},
	"/api":                            {"GET", "HEAD"},
	"/api/stream":                     {"GET"},
	"/api/objects/1":                  {"GET", "HEAD"},
	"/api/objects/1/actions/toggle":   {},
	"/api/objects/1/actions/other":    {},
	"/api/objects/1/actions":          nil,
	"/api/objects/2":                  nil,
	"/api/objects/x":                  nil,
	"/api/objects/":                   nil,
	"/api/":                           nil,
	"/index.html":                     nil,
	"/web/app.js":                     nil,
	"/../console.go":                  nil,
	"/api/objects/1/actions/toggle/x": nil,
}

// Each route and method answers as it should, and none of them changes anything without the option.
func TestWithoutTheOptionEachRouteAndMethodIsReadOnly(t *testing.T) {
	o := breakerThing("bank", 0)
	c := console.New(console.Config{MaxViewers: -1})
	c.Add(o)
	for route, methods := range routes {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get"} {
			r := httptest.NewRequest(method, "/", strings.NewReader(`{"input":""}`))
			r.URL.Path = route
			r.Header.Set("X-Backstay-Action", "1")
			w := httptest.NewRecorder()
			c.ServeHTTP(w, r)
			name := method + " " + route
			allowed := slices.Contains(methods, method)
			switch {
			case route == "/api/stream" && allowed:
				require.Equal(t, 503, w.Code, name) // none are served here
			case allowed:
				require.Equal(t, 200, w.Code, name)
				require.Equal(t, method == "HEAD", w.Body.Len() == 0, name)
			case methods == nil:
				require.Contains(t, []int{404, 405}, w.Code, name)
			case len(methods) == 0 && method == "POST":
				require.Equal(t, 403, w.Code, name)
				require.Contains(t, w.Body.String(), "read-only")
			default:
				require.Equal(t, 405, w.Code, name)
				require.NotEmpty(t, w.Header().Get("Allow"), name)
			}
		}
	}
	require.Empty(t, snapshot(t, c).Events)
}

func TestEveryAnswerHasTheStrictHeaders(t *testing.T) {
	c := console.New(console.Config{MaxViewers: -1})
	for route := range routes {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = route
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		h := w.Header()
		csp := h.Get("Content-Security-Policy")
		require.Contains(t, csp, "default-src 'none'")
		require.Contains(t, csp, "frame-ancestors 'none'")
		require.NotContains(t, csp, "unsafe")
		require.NotContains(t, csp, "http")
		require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"))
		require.Equal(t, "same-origin", h.Get("Cross-Origin-Resource-Policy"))
		require.NotEmpty(t, h.Get("Cache-Control"), route)
	}
}

func TestThePageIsLight(t *testing.T) {
	c := console.New(console.Config{})
	sum := 0
	for _, file := range []string{"/", "/style.css", "/app.js", "/view.js", "/icon.svg"} {
		w := get(c, file)
		body := w.Body.String()
		sum += len(body)
		require.NotContains(t, strings.ReplaceAll(body, "http://www.w3.org/2000/svg", ""), "http", "nothing comes from elsewhere")
		require.NotContains(t, body, "innerHTML")
		r := httptest.NewRequest("GET", file, nil)
		r.Header.Set("If-None-Match", w.Header().Get("ETag"))
		w = httptest.NewRecorder()
		c.ServeHTTP(w, r)
		require.Equal(t, http.StatusNotModified, w.Code)
	}
	require.Less(t, sum, 60_000)
}

func TestAnyPrefixWorks(t *testing.T) {
	c := console.New(console.Config{})
	c.Add(breakerThing("bank", 0))
	for pattern, h := range map[string]http.Handler{
		"/":                        c,
		"/backstay/":               c,
		"/api/":                    c,
		"/app.js/":                 c,
		"/a/b/{rest...}":           c,
		"example.com/deep/er/":     c,
		"GET /only/get/":           c,
		"/stripped/":               http.StripPrefix("/stripped", c),
		"/stripped/api/":           http.StripPrefix("/stripped/api", c),
		"/stripped/whole/{all...}": http.StripPrefix("/stripped/whole", c),
	} {
		mux := http.NewServeMux()
		mux.Handle(pattern, h)
		_, prefix, _ := strings.Cut(pattern, "/")
		prefix, _, _ = strings.Cut("/"+prefix, "{")
		for path, kind := range map[string]string{"": "text/html", "app.js": "text/javascript", "api": "application/json", "api/objects/1": "application/json"} {
			w := get(mux, prefix+path)
			require.Equal(t, 200, w.Code, "%s %s", pattern, path)
			require.Contains(t, w.Header().Get("Content-Type"), kind, "%s %s", pattern, path)
		}
		require.Equal(t, 404, get(mux, prefix+"none").Code, pattern)
	}
}

func TestAPathWithoutItsSlashIsSentOn(t *testing.T) {
	c := http.StripPrefix("/ops/console", console.New(console.Config{}))
	w := get(c, "/ops/console")
	require.Equal(t, http.StatusPermanentRedirect, w.Code)
	require.Equal(t, "./console/", w.Header().Get("Location"))
	r := httptest.NewRequest("GET", "/x", nil)
	r.URL.Path, r.RequestURI = "", "/https:example.org"
	w = httptest.NewRecorder()
	console.New(console.Config{}).ServeHTTP(w, r)
	require.True(t, strings.HasPrefix(w.Header().Get("Location"), "./"), "never to another host")
}

func TestOtherSitesGetNothing(t *testing.T) {
	c := console.New(console.Config{})
	for _, route := range []string{"/api", "/api/stream", "/api/objects/1"} {
		r := httptest.NewRequest("GET", route, nil)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		require.Equal(t, 403, w.Code, route)
	}
}

type tripper struct {
	thing
	trips []string
}

func withActions(t *testing.T, authorize func(*http.Request, console.Attempt) error) (*console.Console, *tripper) {
	t.Helper()
	o := &tripper{thing: thing{kind: "breaker", name: "bank", metrics: map[string]float64{"state": 0}}}
	c := console.New(console.Config{}, console.WithActions(authorize,
		console.On("trip", "Trip it", func(_ context.Context, o *tripper) error { o.trips = append(o.trips, ""); return nil }),
		console.OnInput("name", "Name it", "New name", func(_ context.Context, o *tripper, input string) error {
			if input == "" {
				return errors.New("a name is needed")
			}
			o.trips = append(o.trips, input)
			return nil
		}),
		console.On("burst", "Burst", func(context.Context, *tripper) error { panic("burst") }),
	))
	c.Add(o, breakerThing("other", 0))
	return c, o
}

func act(c *console.Console, path, body string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "http://example.com"+path, strings.NewReader(body))
	r.Header.Set("X-Backstay-Action", "1")
	r.Header.Set("Origin", "http://example.com")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	return w
}

func TestAnActionIsDoneOnceAndLogged(t *testing.T) {
	var asked []console.Attempt
	c, o := withActions(t, func(_ *http.Request, a console.Attempt) error { asked = append(asked, a); return nil })
	w := get(c, "/api/objects/1")
	require.Len(t, decode[object](t, w.Body.String()).Actions, 3)
	require.Empty(t, decode[object](t, get(c, "/api/objects/2").Body.String()).Actions, "they are for another type")

	require.Equal(t, 200, act(c, "/api/objects/1/actions/trip", `{}`, nil).Code)
	require.Equal(t, 200, act(c, "/api/objects/1/actions/name", `{"input":"fred"}`, nil).Code)
	require.Equal(t, []string{"", "fred"}, o.trips)
	require.Len(t, asked, 2)
	require.Equal(t, console.Attempt{Action: "name", Object: o, Kind: "breaker", Name: "bank", Input: "fred"}, asked[1])

	w = act(c, "/api/objects/1/actions/name", `{"input":""}`, nil)
	require.Equal(t, 422, w.Code)
	require.Contains(t, w.Body.String(), "a name is needed")
	w = act(c, "/api/objects/1/actions/burst", `{}`, nil)
	require.Equal(t, 422, w.Code)
	require.Contains(t, w.Body.String(), "panics: burst")
	s := snapshot(t, c)
	require.False(t, s.ReadOnly)
	require.Len(t, s.Events, 4)
	require.Equal(t, "by hand: Name it (fred)", s.Events[1].Text)
	require.Equal(t, "failed", s.Events[3].Level)
}

func TestAnActionIsRefusedToWhomItIsNotFor(t *testing.T) {
	c, o := withActions(t, func(r *http.Request, _ console.Attempt) error {
		if r.Header.Get("Authorization") != "mine" {
			return errors.New("sign in first")
		}
		return nil
	})
	path := "/api/objects/1/actions/trip"
	signed := func(change func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Authorization", "mine")
			if change != nil {
				change(r)
			}
		}
	}
	for name, tt := range map[string]struct {
		path, body string
		change     func(*http.Request)
		code       int
	}{
		"not signed in":       {path, `{}`, nil, 403},
		"another site":        {path, `{}`, signed(func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }), 403},
		"a sibling host":      {path, `{}`, signed(func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }), 403},
		"old browser, origin": {path, `{}`, signed(func(r *http.Request) { r.Header.Del("Sec-Fetch-Site"); r.Header.Set("Origin", "http://evil.example") }), 403},
		"a form":              {path, `{}`, signed(func(r *http.Request) { r.Header.Del("X-Backstay-Action") }), 403},
		"no such object":      {"/api/objects/9/actions/trip", `{}`, signed(nil), 404},
		"no such action":      {"/api/objects/1/actions/none", `{}`, signed(nil), 404},
		"another type":        {"/api/objects/2/actions/trip", `{}`, signed(nil), 404},
		"no body":             {path, ``, signed(nil), 400},
		"unknown field":       {path, `{"x":1}`, signed(nil), 400},
		"large body":          {path, `{"input":"` + strings.Repeat("x", 5000) + `"}`, signed(nil), 400},
		"large input":         {path, `{"input":"` + strings.Repeat("x", 1001) + `"}`, signed(nil), 400},
	} {
		require.Equal(t, tt.code, act(c, tt.path, tt.body, tt.change).Code, name)
		require.Empty(t, o.trips, name)
	}
	require.Equal(t, 200, act(c, path, `{}`, signed(nil)).Code)
	c.Close()
	require.Equal(t, 503, act(c, path, `{}`, signed(nil)).Code)
	require.Len(t, o.trips, 1)
}

func TestWrongOptionsPanic(t *testing.T) {
	nothing := func(context.Context, *thing) error { return nil }
	for name, f := range map[string]func(){
		"config":      func() { console.New(console.Config{Interval: 1}) },
		"option":      func() { console.New(console.Config{}, nil) },
		"authorize":   func() { console.WithActions(nil) },
		"object":      func() { console.New(console.Config{}).Add(nil) },
		"name":        func() { console.On("Not a word", "x", nothing) },
		"label":       func() { console.On("word", "", nothing) },
		"function":    func() { console.On[*thing]("word", "x", nil) },
		"zero action": func() { console.New(console.Config{}, console.WithActions(yes, console.Action{})) },
		"twice": func() {
			console.New(console.Config{}, console.WithActions(yes, console.On("a", "A", nothing), console.On("a", "B", nothing)))
		},
		"check": func() { console.New(console.Config{}).Readiness(console.Check{Name: "x"}) },
	} {
		require.Panics(t, f, name)
	}
}

func yes(*http.Request, console.Attempt) error { return nil }

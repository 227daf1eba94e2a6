package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
)

//go:embed web
var web embed.FS

// asset is a file of the page.
type asset struct {
	kind, tag string
	body      []byte
}

var assets = map[string]asset{
	"":          load("index.html", "text/html; charset=utf-8"),
	"style.css": load("style.css", "text/css; charset=utf-8"),
	"app.js":    load("app.js", "text/javascript; charset=utf-8"),
	"view.js":   load("view.js", "text/javascript; charset=utf-8"),
	"icon.svg":  load("icon.svg", "image/svg+xml"),
}

func load(name, kind string) asset {
	body, err := web.ReadFile("web/" + name)
	if err != nil {
		panic(err) // it is embedded, or this does not compile
	}
	sum := sha256.Sum256(body)
	return asset{kind: kind, tag: `"` + hex.EncodeToString(sum[:8]) + `"`, body: body}
}

const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; " +
	"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// ServeHTTP serves the page and, below it, api (everything as JSON), api/stream (the same, followed by what changes, as server-sent
// events), api/objects/{id} (configuration and history of one object) and, with WithActions, POST api/objects/{id}/actions/{name}.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("X-Frame-Options", "DENY")
	route, ok := below(r)
	if !ok {
		redirect(w, r)
		return
	}
	if a, ok := assets[route]; ok {
		if only(w, r, http.MethodGet, http.MethodHead) {
			a.serve(w, r)
		}
		return
	}
	h.Set("Cache-Control", "no-store")
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		refuse(w, http.StatusForbidden, "this is for the console's own page and for programs")
		return
	}
	c.api(w, r, route)
}

func (c *Console) api(w http.ResponseWriter, r *http.Request, route string) {
	parts := strings.Split(route, "/")
	id := 0
	if len(parts) > 2 {
		id, _ = strconv.Atoi(parts[2]) // 0, which no object has
	}
	switch {
	case route == "api":
		if only(w, r, http.MethodGet, http.MethodHead) {
			c.everything(w, r)
		}
	case route == "api/stream":
		if only(w, r, http.MethodGet) && c.isOpen(w) {
			c.stream(w, r)
		}
	case len(parts) == 3 && parts[0] == "api" && parts[1] == "objects":
		if only(w, r, http.MethodGet, http.MethodHead) {
			c.one(w, r, id)
		}
	case len(parts) == 5 && parts[0] == "api" && parts[1] == "objects" && parts[3] == "actions":
		if only(w, r, http.MethodPost) && c.isOpen(w) {
			c.act(w, r, id, parts[4])
		}
	default:
		refuse(w, http.StatusNotFound, "there is no such page")
	}
}

// below is the path below the one under which the console is mounted: a ServeMux tells its pattern, and http.StripPrefix has taken
// the prefix away already. It reports false where the path is the prefix without its slash, from which relative links would miss.
func below(r *http.Request) (string, bool) {
	_, prefix, found := strings.Cut(r.Pattern, "/")
	prefix, _, _ = strings.Cut("/"+prefix, "{")
	if rest, ok := strings.CutPrefix(r.URL.Path, prefix); found && ok && strings.HasSuffix(prefix, "/") {
		return rest, true
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/")
	return rest, ok
}

// redirect adds the slash, relative to where the browser is: the proxies before this may have changed the path.
func redirect(w http.ResponseWriter, r *http.Request) {
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil || strings.HasSuffix(u.Path, "/") {
		refuse(w, http.StatusNotFound, "there is no such page")
		return
	}
	w.Header().Set("Location", "./"+url.PathEscape(path.Base(u.Path))+"/")
	w.WriteHeader(http.StatusPermanentRedirect)
}

func (a *asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", a.tag)
	if r.Header.Get("If-None-Match") == a.tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", a.kind)
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(a.body) // a browser that has gone needs nothing
	}
}

// only answers requests with other methods.
func only(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	refuse(w, http.StatusMethodNotAllowed, "this is for "+strings.Join(methods, " and ")+" only")
	return false
}

func (c *Console) isOpen(w http.ResponseWriter) bool {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		refuse(w, http.StatusServiceUnavailable, "the console is closed")
	}
	return !closed
}

func refuse(w http.ResponseWriter, code int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(append([]byte(`{"error":`), quoted(reason)...), "}\n"...))
}

func answer(w http.ResponseWriter, r *http.Request, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	if r.Method != http.MethodHead {
		_, _ = w.Write(append(body, '\n'))
	}
}

// everything is what a snapshot holds, no older than an interval.
func (c *Console) everything(w http.ResponseWriter, r *http.Request) {
	c.glance(r.Context(), c.cfg.Interval)
	c.mu.Lock()
	body := c.snapshot()
	c.mu.Unlock()
	answer(w, r, body)
}

// one is an object with its configuration, its history and what may be done to it.
func (c *Console) one(w http.ResponseWriter, r *http.Request, id int) {
	e := c.entry(id)
	if e == nil {
		refuse(w, http.StatusNotFound, "there is no such object")
		return
	}
	c.glance(r.Context(), c.cfg.Interval)
	config := configOf(e.object)
	c.mu.Lock()
	b := e.append(nil, &c.axis)
	b = c.appendTimes(append(b[:len(b)-1], `,"times":`...))
	b = append(b, `,"series":{`...)
	for i := range e.names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, e.keys[i]...), ':')
		b = e.series[i].append(b, e.first, &c.axis)
	}
	c.mu.Unlock()
	b = append(append(b, `},"config":`...), config...)
	b = c.appendActions(append(b, `,"actions":`...), e)
	answer(w, r, append(b, '}'))
}

// entry is nil where there is no such object.
func (c *Console) entry(id int) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		if e.id == id {
			return e
		}
	}
	return nil
}

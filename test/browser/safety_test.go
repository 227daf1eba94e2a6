package browser

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/console"
)

// What objects are called, say and hold is text, however it looks.
func TestHostileNamesAreInert(t *testing.T) {
	const markup = `<img src=x onerror="window.harm=1"><script>window.harm=1</script>`
	c := console.New(console.Config{Name: markup})
	t.Cleanup(c.Close)
	for _, name := range []string{
		markup, strings.Repeat("W", 10_000), "line\nbreak\ttab\x00\x1b[31m", "\u202egnp.exe", "javascript:alert(1)", "__proto__", "constructor", "", "${harm}", "&lt;b&gt;",
	} {
		g := &gauge{kind: "boiler", name: name, config: map[string]any{name: name, "__proto__": map[string]any{"harm": 1}}}
		c.Add(g)
		c.Record(console.Event{Kind: name, Name: name, Text: name})
	}
	constructor := &thing{kind: "constructor", metric: "constructor"}
	c.Add(constructor, &thing{kind: "boiler", metric: "__proto__"}, &thing{kind: "retry", metric: "toString_total"})
	c.Add(&gauge{kind: markup, name: "kind"}, &gauge{kind: "__proto__", name: "proto"}, &gauge{kind: "constructor.x", name: "constructor"})
	base := serve(t, "/backstay/", c)
	p := start(t)
	p.open(base)
	p.await(`document.querySelectorAll('.row').length === 16 && document.querySelectorAll('#events li').length === 10`)
	for i := range 16 {
		p.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`document.querySelectorAll('.row button')[%d].click()`, i)))
		p.await(`document.getElementById('detail').open && document.getElementById('detail-config').children.length > 0`)
		p.do(chromedp.Click(`#detail-close`))
		p.await(`!document.getElementById('detail').open`)
	}
	require.True(t, eval[bool](p, `window.harm === undefined && ({}).harm === undefined`))
	require.Zero(t, eval[int](p, `document.querySelectorAll('main img, main script, main a:not([href^="#panel-"]), dialog img').length`))
	require.Contains(t, eval[string](p, `document.body.innerText`), `<img src=x onerror`)
	require.Contains(t, eval[string](p, `document.title`), `<img`)
	for _, width := range []int64{1280, 390} {
		p.do(chromedp.EmulateViewport(width, 900))
		require.LessOrEqual(t, eval[int64](p, `document.documentElement.scrollWidth`), width, "long names do not break the page")
	}
	p.requireQuiet(base)
}

func withActions(t *testing.T) *scene {
	t.Helper()
	return newScene(t, console.WithActions(
		func(_ *http.Request, a console.Attempt) error {
			if a.Input == "nobody" {
				return errors.New("that is not for you")
			}
			return nil
		},
		console.OnInput("set", "Set the level", "Level", func(_ context.Context, g *gauge, input string) error {
			g.value.Store(int64(len(input)))
			return nil
		}),
	))
}

func TestActionsAreTakenAfterAQuestion(t *testing.T) {
	s := withActions(t)
	base := serve(t, "/backstay/", s.console)
	p := start(t)
	p.open(base)
	p.do(chromedp.Click(`.row[data-kind=boiler] button`))
	p.await(`document.querySelector('[data-action=set]') !== null`)
	try := func(input string) {
		p.do(chromedp.Click(`[data-action=set]`))
		p.await(`document.activeElement.tagName === 'INPUT'`)
		require.EqualValues(t, 0, s.own.value.Load(), "nothing is done before the question is answered")
		p.do(chromedp.KeyEvent(input + "\r"))
	}
	try("nobody")
	p.await(`document.querySelector('.said').innerText.includes('that is not for you')`)
	try("12345")
	p.await(`document.querySelector('.said').innerText.includes('Done')`)
	require.EqualValues(t, 5, s.own.value.Load())
	p.await(`document.getElementById('events').innerText.includes('by hand: Set the level (12345)')`)
	p.mu.Lock()
	p.errors = nil // the browser notes the refusal
	p.mu.Unlock()
}

// A page of another site cannot make the operator's browser act, nor read or even watch.
func TestAnotherSiteCanNeitherActNorRead(t *testing.T) {
	s := withActions(t)
	base := serve(t, "/backstay/", s.console)
	base = strings.Replace(base, "127.0.0.1", "localhost", 1)
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `<!DOCTYPE html><title>evil</title>`)
	}))
	t.Cleanup(func() { evil.CloseClientConnections(); evil.Close() })
	p := start(t)
	p.do(chromedp.Navigate(evil.URL))
	action := base + "api/objects/10/actions/set"
	for name, script := range map[string]string{
		"plain":    `fetch('` + action + `', {method: 'POST', body: '{"input":"x"}'}).then(() => 'read', () => 'refused')`,
		"no-cors":  `fetch('` + action + `', {method: 'POST', mode: 'no-cors', body: '{"input":"x"}'}).then((r) => r.type, () => 'refused')`,
		"header":   `fetch('` + action + `', {method: 'POST', headers: {'X-Backstay-Action': '1'}, body: '{"input":"x"}'}).then(() => 'read', () => 'refused')`,
		"read":     `fetch('` + base + `api').then(() => 'read', () => 'refused')`,
		"watch":    `new Promise((done) => { const s = new EventSource('` + base + `api/stream'); s.onmessage = () => done('read'); s.onopen = () => done('read'); s.onerror = () => { s.close(); done('refused'); }; })`,
		"embed":    `new Promise((done) => { const f = document.createElement('iframe'); f.src = '` + base + `'; f.onload = () => { let d = null; try { d = f.contentDocument; } catch {} done(d ? 'read' : 'refused'); }; document.documentElement.append(f); })`,
		"use code": `new Promise((done) => { const f = document.createElement('script'); f.src = '` + base + `app.js'; f.onload = () => done('read'); f.onerror = () => done('refused'); document.documentElement.append(f); })`,
	} {
		require.Equal(t, "refused", strings.Replace(eval[string](p, script), "opaque", "refused", 1), name)
	}
	require.Zero(t, s.own.value.Load())
	require.Equal(t, 200, status(t, base+"api"))
}

func status(t *testing.T, at string) int {
	t.Helper()
	resp, err := http.Get(at)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

// buffering is a proxy at its own prefix that passes on nothing of an answer before all of it is there.
func buffering(t *testing.T, to string) string {
	t.Helper()
	target, err := url.Parse(to)
	require.NoError(t, err)
	return serve(t, "/ops/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at := *target
		at.Path += strings.TrimPrefix(r.URL.Path, "/ops/")
		out, err := http.NewRequestWithContext(r.Context(), r.Method, at.String(), nil)
		if err != nil {
			panic(err)
		}
		resp, err := http.DefaultTransport.RoundTrip(out)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		var all bytes.Buffer
		if _, err := io.Copy(&all, resp.Body); err != nil {
			return // the browser has gone
		}
		maps.Copy(w.Header(), resp.Header)
		w.WriteHeader(resp.StatusCode)
		_, _ = w.Write(all.Bytes())
	}))
}

func TestThePageWorksBehindAProxyThatBuffers(t *testing.T) {
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	s := newScene(t)
	base := buffering(t, serve(t, "/backstay/", s.console))
	p := start(t)
	p.do(chromedp.EmulateViewport(1280, 1100), chromedp.Navigate(base))
	p.await(`document.getElementById('link').textContent === 'live, by asking'`)
	s.own.value.Store(77)
	p.await(row("boiler") + `.includes('level\n77')`)
	p.requireQuiet(base)
}

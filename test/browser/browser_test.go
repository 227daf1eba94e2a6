package browser

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := m.Run()
	shared.close()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// wait bounds waiting for a condition in the page.
const wait = 90 * time.Second

// chromium is the browser's binary.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const how = "there is no chromium: install it with apt-get install -y chromium"
	if os.Getenv("BACKSTAY_REQUIRE_SERVICES") == "1" {
		t.Fatal(how)
	}
	t.Skip(how)
	return ""
}

// tab is an open page.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	errors   []string // of the browser's own console
	requests []string // URLs
}

// browser is started by the first test that needs one, with an empty profile, and serves all.
type browser struct {
	ctx     context.Context
	closers []func()
}

var shared browser

func (b *browser) start(t *testing.T) {
	path := chromium(t)
	if b.ctx != nil {
		return
	}
	profile, err := os.MkdirTemp("", "backstay-browser-") //nolint:usetesting // it outlives the test
	require.NoError(t, err)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.UserDataDir(profile), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.WSURLReadTimeout(wait),
	)
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	b.closers = []func(){func() {
		closing, give := context.WithTimeout(ctx, wait)
		_ = chromedp.Cancel(closing) // one that does not close is killed with its allocator
		give()
	}, cancel, end, func() { _ = os.RemoveAll(profile) }}
	require.NoError(t, chromedp.Do(ctx))
	b.ctx = ctx
}

func (b *browser) close() {
	for _, fn := range b.closers {
		fn()
	}
}

// start opens a tab.
func start(t *testing.T) *tab {
	t.Helper()
	shared.start(t)
	ctx, cancel := chromedp.NewContext(shared.ctx)
	p := &tab{t: t, ctx: ctx}
	require.NoError(t, chromedp.Listen(ctx, p.hear))
	heard := p.hearConsole()
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx)
		cancel()
		<-heard
	})
	return p
}

func (p *tab) hear(ev any) {
	if e, ok := ev.(*network.EventRequestWillBeSent); ok {
		p.mu.Lock()
		p.requests = append(p.requests, e.Request.URL)
		p.mu.Unlock()
	}
}

// hearConsole listens until the tab is closed.
func (p *tab) hearConsole() (ended chan struct{}) {
	messages := chromedp.Console(p.ctx)
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.Type == chromedp.ConsoleError || m.Type == chromedp.ConsoleException || m.Type == chromedp.ConsoleWarning {
				p.mu.Lock()
				p.errors = append(p.errors, string(m.Type)+": "+m.Text)
				p.mu.Unlock()
			}
		}
	}()
	return ended
}

// requireQuiet requires that the browser had nothing to complain of and asked nobody but the service.
func (p *tab) requireQuiet(base string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Empty(p.t, p.errors)
	require.NotEmpty(p.t, p.requests)
	for _, url := range p.requests {
		require.True(p.t, strings.HasPrefix(url, base), url)
	}
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, wait)
	defer cancel()
	require.NoError(p.t, chromedp.Do(ctx, steps...))
}

func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, wait)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(p.t, err, expression)
	return v
}

// await waits until the JavaScript expression holds, and returns after how long that was, as the page measures it.
func (p *tab) await(expression string) time.Duration {
	p.t.Helper()
	ms := eval[float64](p, fmt.Sprintf(`new Promise((done) => {
		const begin = performance.now();
		const look = () => {
			let ok = false;
			try { ok = %s; } catch {}
			if (ok) done(performance.now() - begin);
			else if (performance.now() - begin > %d) done(-1);
			else setTimeout(look, 20);
		};
		look();
	})`, expression, (wait-10*time.Second).Milliseconds()))
	if ms < 0 {
		require.Fail(p.t, "never in the page: "+expression, "%s", eval[string](p, `document.body.innerText`))
	}
	return time.Duration(ms * float64(time.Millisecond))
}

func (p *tab) media(scheme string) {
	p.t.Helper()
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}},
	})
	require.NoError(p.t, err)
}

// picture writes what the tab shows to the file.
func (p *tab) picture(path string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, wait)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	require.NoError(p.t, err)
	require.NoError(p.t, os.WriteFile(path, png, 0o644)) //nolint:gosec // a picture for anybody
	p.t.Logf("%s: %d kB", path, len(png)>>10)
}

// serve serves h at a prefix, as a service does.
func serve(t *testing.T, prefix string, h http.Handler) (base string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(prefix, h)
	srv := httptest.NewServer(mux)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv.URL + prefix
}

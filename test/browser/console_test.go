package browser

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/console"
	"github.com/backstay-go/backstay/saga"
)

func row(kind string) string {
	return fmt.Sprintf(`document.querySelector('.row[data-kind=%q]').innerText`, kind)
}

func (p *tab) open(base string) {
	p.t.Helper()
	p.do(chromedp.EmulateViewport(1280, 1100), chromedp.Navigate(base))
	p.await(`document.querySelectorAll('.row').length > 0`)
}

// Each panel shows a change within two seconds. A machine that stalls may make a try late, not all of them.
func TestEachPanelShowsAProvokedChange(t *testing.T) {
	s := newScene(t)
	base := serve(t, "/ops/backstay/", s.console)
	p := start(t)
	p.open(base)
	p.await(`document.getElementById('link').textContent === 'live'`)
	all := s.provocations()
	for _, name := range names(all) {
		t.Run(name, func(t *testing.T) {
			for round := range 4 {
				shows := all[name].make(t, round)
				where := row(all[name].row)
				if name == "events" {
					where = `document.getElementById('events').innerText`
				}
				took := p.await(fmt.Sprintf(`%s.includes(%q)`, where, shows))
				t.Logf("after %v", took)
				if took < 2*time.Second {
					return
				}
			}
			t.Error("never within two seconds")
		})
	}
	p.await(`document.getElementById('events').innerText.includes('dead letter')`)
	p.requireQuiet(base)
}

func TestTheBreakersTimelineShowsItsStates(t *testing.T) {
	s := newScene(t)
	base := serve(t, "/backstay/", s.console)
	p := start(t)
	p.open(base)
	const line = `document.querySelector('.row[data-kind=breaker] .spark')`
	p.await(line + `.querySelectorAll('.s0').length === 1 && ` + line + `.querySelectorAll('.s1').length === 0`)
	for i, mode := range []string{"force_open", "force_closed", "force_open"} {
		cfg := s.breaker.Config()
		cfg.Mode = mode
		require.NoError(t, s.breaker.Reconfigure(cfg))
		p.await(fmt.Sprintf(`%s.querySelectorAll('.s%d').length === %d`, line, (i+1)%2, (i+1)/2+1))
	}
	require.True(t, eval[bool](p, `[...`+line+`.children].every((band, i, all) => i === 0 || Number(band.getAttribute('x')) > Number(all[i-1].getAttribute('x')))`),
		"the states stand in the order of time")
	require.Contains(t, eval[string](p, line+`.getAttribute('aria-label')`), "open")
	p.requireQuiet(base)
}

// An object that knows how far it is behind says so in its row, of whatever kind it is.
func TestALagIsShownWhereThereIsOne(t *testing.T) {
	c := console.New(console.Config{})
	t.Cleanup(c.Close)
	c.Add(
		&numbers{"pubsub.consumer", []any{"handled_total", 7, "in_flight", 1, "lag", 4321}},
		&numbers{"pubsub", []any{"published_total", 7, "unread", 5, "lag", 4321}},
		&numbers{"relay", []any{"pending", 1, "lag", 4321}},
		&numbers{"tank", []any{"a", 1, "b", 1, "c", 1, "d", 1, "e", 1, "f", 1, "lag", 4321}},
		&numbers{"pump", []any{"a", 1}},
	)
	base := serve(t, "/backstay/", c)
	p := start(t)
	p.open(base)
	p.await(`document.querySelectorAll('.row').length === 5`)
	require.Equal(t, []string{"pubsub", "pubsub.consumer", "relay", "tank"}, eval[[]string](p,
		`[...document.querySelectorAll('.row')].filter((row) => row.innerText.includes('lag\n4,321')).map((row) => row.dataset.kind)`))
	p.requireQuiet(base)
}

// What the steps of sagas do is in their row and in a table, and a stuck saga is what the page begins with.
func TestSagasAreShownByTheirSteps(t *testing.T) {
	s := newScene(t)
	base := serve(t, "/backstay/", s.console)
	p := start(t)
	p.open(base)
	for i := range 5 {
		require.NoError(t, saga.Start(t.Context(), s.saga, s.trips, fmt.Sprint("fine-", i), 1))
	}
	require.NoError(t, saga.Start(t.Context(), s.saga, s.trips, "stuck", -2))
	p.await(row("saga") + `.includes('undo flight')`)
	p.await(row("saga") + `.includes('stuck\n1')`)
	p.await(`document.getElementById('ailing').innerText.includes('1 stuck')`)
	p.do(chromedp.Click(`.row[data-kind=saga] button`))
	p.await(`[...document.querySelectorAll('#detail-metrics th')].some((th) => th.innerText === 'flight')`)
	p.await(`[...document.querySelectorAll('#detail-metrics tr')].some((tr) => /^trip[|]flight[|]do[|]6( .*)?[|]0[|].*s/.test([...tr.children].map((c) => c.innerText).join('|')))`)
	p.requireQuiet(base)
}

func TestPictures(t *testing.T) {
	s := newScene(t)
	base := serve(t, "/backstay/", s.console)
	p := start(t)
	s.liven(t)
	p.open(base)
	p.await(`document.querySelectorAll('#events li').length >= 4`)
	p.await(`document.querySelector('.row[data-kind=breaker] .spark').children.length >= 3`)
	docs := os.Getenv("BACKSTAY_DOCS_PICTURE") == "1"
	if docs { // the timelines are to be full
		p.await(`document.querySelector('.row[data-kind=breaker] .spark').children.length >= 26`)
	}
	p.await(row("breaker") + `.includes('\nopen\n')`)
	dir := t.TempDir()
	if keep := os.Getenv("BACKSTAY_PICTURES"); keep != "" {
		dir = keep
	}
	for _, scheme := range []string{"light", "dark"} {
		p.media(scheme)
		p.do(chromedp.EmulateViewport(1280, 1100))
		p.picture(filepath.Join(dir, scheme+".png"))
		if scheme == "light" && docs {
			p.do(chromedp.EmulateViewport(1280, 1340))
			p.await(row("breaker") + `.includes('\nopen\n')`)
			p.picture(filepath.Join("..", "..", "docs", "console.png"))
		}
	}
	p.media("light")
	p.do(chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile))
	p.picture(filepath.Join(dir, "phone.png"))
	p.do(chromedp.EmulateViewport(390, 4400, chromedp.EmulateMobile))
	p.picture(filepath.Join(dir, "phone-whole.png"))
	require.LessOrEqual(t, eval[int](p, `document.documentElement.scrollWidth`), 390, "nothing sticks out on a phone")
	p.do(chromedp.EmulateViewport(1280, 1100))
	for kind, file := range map[string]string{"breaker": "detail.png", "saga": "steps.png"} {
		p.do(chromedp.Click(`.row[data-kind=` + kind + `] button`))
		p.await(`document.querySelectorAll('#detail-metrics tr').length > 5`)
		p.picture(filepath.Join(dir, file))
		p.do(chromedp.Click(`#detail-close`))
		p.await(`!document.getElementById('detail').open`)
	}
	p.requireQuiet(base)
}

func TestAClickOpensConfigurationAndHistory(t *testing.T) {
	s := newScene(t)
	base := serve(t, "/backstay/", s.console)
	p := start(t)
	p.open(base)
	p.do(chromedp.Click(`.row[data-kind=boiler] button`))
	p.await(`document.getElementById('detail-config').innerText.includes('limit')`)
	require.NotContains(t, eval[string](p, `document.body.innerText`), "hunter2", "secrets are struck out")
	s.own.value.Store(82)
	p.await(`document.getElementById('detail-metrics').innerText.includes('82')`)
	p.await(`document.querySelectorAll('#detail-metrics svg').length === 1`)
	require.True(t, eval[bool](p, `document.getElementById('detail-actions').children.length === 0`), "it is read-only")
	p.do(chromedp.KeyEvent("\x1b"))
	p.await(`!document.getElementById('detail').open && document.activeElement.closest('.row').dataset.kind === 'boiler'`)
	p.requireQuiet(base)
}

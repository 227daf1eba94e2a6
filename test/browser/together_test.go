package browser

import (
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/console"
)

func TestTwoTabsShowTheSame(t *testing.T) {
	s := newScene(t)
	base := serve(t, "/backstay/", s.console)
	one, two := start(t), start(t)
	one.open(base)
	for round := range 3 {
		for name, p := range s.provocations() {
			if name != "limits" || round == 0 {
				p.make(t, round)
			}
			if name == "bulkheads" && round == 2 {
				s.console.Record(console.Event{Text: "all is provoked"})
			}
		}
	}
	two.open(base)
	for _, p := range []*tab{one, two} {
		p.await(`document.getElementById('events').innerText.includes('all is provoked') && ` + row("saga") + `.includes('compensated\n3')`)
		// Until rates have come to rest.
		p.await(`[...document.querySelectorAll('.facts dd')].every((d) => !d.textContent.endsWith('/s') || d.textContent === '0/s')`)
	}
	const shown = `document.getElementById('panels').innerText + document.getElementById('events').innerText`
	require.Equal(t, eval[string](one, shown), eval[string](two, shown))
	one.requireQuiet(base)
	two.requireQuiet(base)
}

func TestPauseHoldsThePageStillAndEndsTheStream(t *testing.T) {
	s := newScene(t)
	base := serve(t, "/backstay/", s.console)
	p := start(t)
	p.open(base)
	p.do(chromedp.KeyEvent("p"))
	p.await(`document.getElementById('link').textContent === 'paused' && document.getElementById('pause').getAttribute('aria-pressed') === 'true'`)
	before := eval[string](p, `document.getElementById('panels').innerText`)
	s.own.value.Store(99)
	another := start(t) // sees it, so the first could have
	another.open(base)
	another.await(row("boiler") + `.includes('99')`)
	require.Equal(t, before, eval[string](p, `document.getElementById('panels').innerText`))
	p.do(chromedp.Click(`#pause`))
	p.await(row("boiler") + `.includes('99')`)
	p.requireQuiet(base)
}

// Everything can be reached and done by keyboard, and has a name for those who do not see it.
func TestKeyboardAndScreenReader(t *testing.T) {
	s := newScene(t)
	base := serve(t, "/backstay/", s.console)
	p := start(t)
	p.open(base)
	p.do(chromedp.KeyEvent("/"))
	p.await(`document.activeElement.id === 'filter'`)
	p.do(chromedp.Evaluate[chromedp.Void](`document.getElementById('filter').value = ''`)) // a synthetic key may be typed all the same
	p.do(chromedp.KeyEvent("cellar"))
	p.await(`document.querySelectorAll('.row:not([hidden])').length === 1`)
	p.do(chromedp.Evaluate[chromedp.Void](`document.querySelector('.row:not([hidden]) button').focus()`), chromedp.KeyEvent("\r"))
	p.await(`document.getElementById('detail').open && document.activeElement.id === 'detail-close'`)
	p.do(chromedp.KeyEvent("\r"))
	p.await(`!document.getElementById('detail').open && document.activeElement.closest('.row') !== null`)
	require.Empty(t, eval[[]string](p, `[...document.querySelectorAll('button, input, a, [role=img], section, dialog, [role=log]')].filter((e) => {
		const by = e.getAttribute('aria-labelledby');
		const name = e.getAttribute('aria-label') || (by && document.getElementById(by).textContent) || e.textContent || (e.labels && e.labels[0]?.textContent);
		return !name?.trim() && e.id !== 'detail';
	}).map((e) => e.outerHTML)`), "everything has a name")
	require.Equal(t, "en", eval[string](p, `document.documentElement.lang`))
	require.True(t, eval[bool](p, `document.querySelectorAll('h1').length === 1 && document.querySelector('main') !== null`))
	p.requireQuiet(base)
}

package browser

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
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
				took := p.await(fmt.Sprintf(`%s.includes(%q)`, row(all[name].row), shows))
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
	require.LessOrEqual(t, eval[int](p, `document.documentElement.scrollWidth`), 390, "nothing sticks out on a phone")
	p.do(chromedp.EmulateViewport(1280, 1100))
	p.do(chromedp.Click(`.row[data-kind=breaker] button`))
	p.await(`document.querySelectorAll('#detail-metrics tr').length > 5`)
	p.picture(filepath.Join(dir, "detail.png"))
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

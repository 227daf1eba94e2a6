package console_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/console"
)

func TestAViewerGetsASnapshotAndThenOnlyWhatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bank, stock := breakerThing("bank", 0), breakerThing("stock", 0)
		c := console.New(console.Config{Name: "shop"})
		c.Add(bank, stock)
		v := view(t, c)
		defer v.close()

		kind, text := v.next()
		require.Equal(t, "snapshot", kind)
		s := decode[state](t, text)
		require.Equal(t, "shop", s.Title)
		require.True(t, s.ReadOnly)
		require.Len(t, s.Objects, 2)
		require.Equal(t, "bank", s.Objects[0].Name)
		require.Equal(t, "breakers", s.Objects[0].Panel)
		require.Equal(t, "ok", s.Objects[0].Status)
		require.Equal(t, "state", s.Objects[0].Chart)

		kind, text = v.next()
		require.Equal(t, "delta", kind)
		require.Less(t, len(text), 60, "nothing has changed")

		bank.set("state", 1)
		bank.set("rejected_total", 10)
		d := v.read()
		require.Equal(t, s.Seq+2, d.Seq)
		require.Len(t, d.Set, 1)
		changed := d.Set["1"]
		require.EqualValues(t, 1, changed.Metrics["state"])
		require.Equal(t, "degraded", changed.Status)
		require.Equal(t, "open", changed.Why)
		require.Positive(t, changed.Rates["rejected_total"])
		require.Len(t, d.Events, 1)
		require.Equal(t, "open", d.Events[0].Text)

		d = v.read()
		require.Empty(t, d.Events)
		require.Nil(t, d.Set["1"].Metrics, "only the rate moves on")
		c.Record(console.Event{Text: "news"})
		d = v.read()
		require.Len(t, d.Events, 1, "the old one is not told again")
		require.Equal(t, "news", d.Events[0].Text)
	})
}

func TestLooksComeAtTheIntervalAndOnlyWhileSomebodyLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := breakerThing("bank", 0)
		c := console.New(console.Config{})
		c.Add(o)
		time.Sleep(time.Hour) // in a bubble
		require.Zero(t, o.looked(), "nobody looks")

		v := view(t, c)
		start := time.Now()
		v.read()
		require.Equal(t, 1, o.looked(), "a look for the first viewer")
		for range 10 {
			v.read()
		}
		require.Equal(t, 5*time.Second, time.Since(start), "twice a second")
		require.Equal(t, 11, o.looked())
		other := view(t, c)
		other.read()
		require.Equal(t, 11, o.looked(), "the second viewer shares the first one's looks")
		other.close()
		v.close()
		synctest.Wait()
		time.Sleep(time.Hour)
		require.Equal(t, 11, o.looked(), "nobody looks any more")
	})
}

func TestTwoViewersSeeTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := breakerThing("bank", 0)
		c := console.New(console.Config{})
		c.Add(o)
		first := view(t, c)
		defer first.close()
		first.read()
		second := view(t, c)
		defer second.close()
		_, text := second.next()
		begin := decode[state](t, text)
		require.EqualValues(t, 1, begin.Seq)
		for i := range 20 {
			o.set("state", float64(i%3))
			o.set("rejected_total", float64(i*i))
			_, one := first.next()
			_, two := second.next()
			require.Equal(t, one, two)
		}
		// Whoever comes now sees what the others have come to see.
		third := view(t, c)
		defer third.close()
		s := third.read()
		require.EqualValues(t, 1, s.Objects[0].Metrics["state"])
		require.Len(t, s.Times, 21)
		require.Len(t, s.Objects[0].Line, 21)
	})
}

func TestObjectsComeAndGoWhileSomebodyLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := console.New(console.Config{})
		v := view(t, c)
		defer v.close()
		require.Empty(t, v.read().Objects)
		o := breakerThing("bank", 2)
		remove := c.Add(o)
		d := v.read()
		require.Len(t, d.Add, 1)
		require.Equal(t, "half-open", d.Add[0].Why)
		o.set("fresh", 7) // a metric that was not there before
		d = v.read()
		require.Len(t, d.Add, 1)
		require.EqualValues(t, 7, d.Add[0].Metrics["fresh"])
		remove()
		remove()
		d = v.read()
		require.Equal(t, []int{1}, d.Gone)
		require.Empty(t, v.read().Gone)
		require.Empty(t, snapshot(t, c).Objects)
		require.Equal(t, 404, get(c, "/api/objects/1").Code)
	})
}

func TestAViewerThatDoesNotKeepUpIsDroppedAndHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := breakerThing("bank", 0)
		c := console.New(console.Config{})
		c.Add(o)
		dead := view(t, c)
		dead.read() // and never again: its writes block
		brisk := view(t, c)
		brisk.read()
		for i := range 40 {
			o.set("state", float64(i%2))
			start := time.Now()
			brisk.read()
			require.LessOrEqual(t, time.Since(start), 500*time.Millisecond)
			c.Record(console.Event{Text: "does not block"})
		}
		brisk.close()
		synctest.Wait()
		looks := o.looked()
		time.Sleep(time.Minute)
		require.Equal(t, looks, o.looked(), "the dead one has been dropped, so nobody looks")
		dead.close()
	})
}

func TestStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := console.New(console.Config{MaxViewers: 1})
		v := view(t, c)
		v.read()
		w := get(c, "/api/stream")
		require.Equal(t, 503, w.Code)
		require.NotEmpty(t, w.Header().Get("Retry-After"))
		require.Equal(t, 200, get(c, "/api").Code, "asking still works")
		v.close()
		v = view(t, c)
		v.read()
		v.close()
		require.Equal(t, 503, get(console.New(console.Config{MaxViewers: -1}), "/api/stream").Code)
	})
}

func TestCloseEndsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := console.New(console.Config{})
		v := view(t, c)
		v.read()
		c.Close()
		c.Close()
		v.close()
		require.Equal(t, 503, get(c, "/api/stream").Code)
		require.Equal(t, 200, get(c, "/api").Code)
	})
}

func TestTheStreamPassesProxiesThatBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := view(t, console.New(console.Config{}))
		first, err := v.lines.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "retry: 2000\n", first)
		line, err := v.lines.ReadString('\n')
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(line), 2000, "padding")
		require.Equal(t, "no", v.head.Get("X-Accel-Buffering"))
		require.Equal(t, "text/event-stream", v.head.Get("Content-Type"))
		require.Contains(t, v.head.Get("Cache-Control"), "no-transform")
		v.close()
	})
}

func TestAnObjectThatBlocksHoldsUpThePageAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		o := breakerThing("stuck", 0)
		o.before = func() { <-let }
		c := console.New(console.Config{})
		c.Add(o)
		start := time.Now()
		require.Equal(t, 200, get(c, "/api").Code)
		require.Equal(t, 200, get(c.Readiness(), "/").Code)
		v := view(t, c)
		v.read()
		require.Less(t, time.Since(start), 10*time.Second)
		c.Add(breakerThing("other", 0))
		c.Record(console.Event{Text: "goes on"})
		v.close()
		close(let)
	})
}

func TestAnObjectThatPanicsIsShownAsSuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, other := breakerThing("bad", 0), breakerThing("good", 0)
		c := console.New(console.Config{})
		c.Add(o, other)
		require.Equal(t, "ok", snapshot(t, c).Objects[0].Status)
		o.before = func() { panic("no numbers today") }
		time.Sleep(time.Second)
		s := snapshot(t, c)
		require.Equal(t, "metrics: panics: no numbers today", s.Objects[0].Why)
		require.Equal(t, "ok", s.Objects[1].Status)
		o.before = nil
		time.Sleep(time.Second)
		s = snapshot(t, c)
		require.Equal(t, "ok", s.Objects[0].Status)
		require.Len(t, s.Events, 2)
		require.Contains(t, s.Events[1].Text, "well again")
		line := s.Objects[0].Line
		require.Nil(t, line[len(line)-2], "there was no number")
		require.NotNil(t, line[len(line)-1])
	})
}

package main

import (
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/bench"
)

func found() report {
	work := bench.Headlines()[0]
	a := area{page: page{name: "demo", title: "Demo & more"}}
	a.Rows = []row{
		{Case: work, Subject: bench.Floor, NsOp: 1500, RatioToFloor: 1},
		{Case: work, Subject: bench.Ours + ", <timed>", NsOp: 750, RatioToFloor: 0.5},
		{Case: work, Subject: "peer 1.0", NsOp: 180_000, RatioToFloor: 120, AllocsOp: 3},
		{Case: "not a headline", Subject: bench.Floor, NsOp: 2e6, RatioToFloor: 1},
	}
	return report{Head: "go0, 2 cores", Areas: []area{a}}
}

func TestAPlotIsXMLThatShowsEverySubjectOnItsSideOfTheFloor(t *testing.T) {
	r := found()
	picture := r.Areas[0].plot(r.Head)
	var texts []string
	var ends []xml.Attr
	decoder := xml.NewDecoder(strings.NewReader(picture))
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		switch e := token.(type) {
		case xml.CharData:
			texts = append(texts, strings.TrimSpace(string(e)))
		case xml.StartElement:
			if e.Name.Local == "circle" {
				ends = append(ends, e.Attr[1])
			}
		}
	}
	require.Contains(t, texts, "backstay, <timed>")
	require.Contains(t, texts, "120 ×")
	require.Contains(t, texts, bench.Headlines()[0]+" – floor 1.5 µs")
	// Four decades, 0.1 to 1000, share 500 px from the 380th on.
	require.Equal(t, []string{"467.4", "764.9"}, []string{ends[0].Value, ends[1].Value})
}

func TestTheFiguresReplaceWhatStandsBetweenTheirMarksAndNothingElse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "README.md")
	page := "before\n<!-- figures of demo: begin -->\nold\n<!-- figures of demo: end -->\nafter\n"
	require.NoError(t, os.WriteFile(file, []byte(page), 0o600))
	r := found()
	require.NoError(t, r.showIn(file))
	require.NoError(t, r.showIn(file), "a second time")
	shown, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "before\n<!-- figures of demo: begin -->\n\nDemo & more, × the floor (allocations); go0, 2 cores:\n\n"+
		"| work | floor | backstay | others |\n| --- | --- | --- | --- |\n"+
		"| "+bench.Headlines()[0]+" | 1.5 µs | <timed> 0.5 (0) | peer 1.0 120 (3) |\n\n<!-- figures of demo: end -->\nafter\n", string(shown))
}

func TestAPageWithoutMarksIsRefusedAndLeftAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "README.md")
	require.NoError(t, os.WriteFile(file, []byte("nothing"), 0o600))
	r := found()
	require.ErrorContains(t, r.showIn(file), "<!-- figures of demo: begin -->")
	shown, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "nothing", string(shown))
}

func TestABenchmarkThatFailsIsTriedAgainAndOtherwiseNamedBesideWhatWasMeasured(t *testing.T) {
	works := func(b *testing.B) {
		for b.Loop() {
			_ = b.N
		}
	}
	fails := func(b *testing.B) { b.FailNow() }
	var tried int
	failsOnce := func(b *testing.B) {
		if tried++; tried == 1 {
			b.FailNow()
		}
		works(b)
	}
	rows, skipped, err := measure([]bench.Case{
		{Name: "steady", Subject: bench.Floor, Run: works},
		{Name: "steady", Subject: bench.Ours, Run: failsOnce},
		{Name: "steady", Subject: "peer 1.0", Run: fails},
		{Name: "unfounded", Subject: bench.Floor, Run: fails},
		{Name: "unfounded", Subject: bench.Ours, Run: works},
	}, 2)
	require.Len(t, rows, 2, "without its floor a subject has no row")
	require.Equal(t, []string{bench.Floor, bench.Ours}, []string{rows[0].Subject, rows[1].Subject})
	require.Positive(t, rows[1].RatioToFloor)
	require.Len(t, skipped, 2)
	require.ErrorContains(t, err, "steady, peer 1.0: the benchmark failed twice")
	require.ErrorContains(t, err, "unfounded, floor: the benchmark failed twice")
}

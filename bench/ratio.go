package bench

import (
	"compress/gzip"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
)

// Ratio is how many of the reads of a trace a cache could answer, in percent.
type Ratio struct {
	Case    string
	Subject string
	Percent float64 // the mean of the runs
	Best    float64 // of a cache that holds the most popular keys from the beginning to the end
}

// trace is an order of reads, and the capacities at which caches are put through it.
type trace struct {
	name       string
	capacities []int
	runs       func() ([][]string, error)
}

const zipfKeys = 100_000

func traces(requests, runs int) []trace {
	small, large := 1000, 10_000
	return []trace{
		{"Zipf 0.9 over 100,000 keys", []int{small, large}, zipfRuns(0.9, requests, runs)},
		{"Zipf 1.01 over 100,000 keys", []int{small, large}, zipfRuns(1.01, requests, runs)},
		{"products of a shop in order of sale", []int{400, small}, saleRuns(requests, runs)},
	}
}

func ratioCase(name string, capacity int) string {
	return fmt.Sprintf("%s, capacity %d", name, capacity)
}

// Ratios puts the caches through traces of so many reads, each so many times, and returns what could not be run with the reason.
func Ratios(requests, runs int) (all []Ratio, skipped []error) {
	for _, t := range traces(requests, runs) {
		reads, err := t.runs()
		if err != nil {
			skipped = append(skipped, fmt.Errorf("hit ratio, %s: %w", t.name, err))
			continue
		}
		for _, capacity := range t.capacities {
			best := bestFixed(reads, capacity)
			for _, s := range ratioSubjects() {
				all = append(all, Ratio{ratioCase(t.name, capacity), s.name, meanRatio(s, capacity, reads), best})
			}
		}
	}
	return all, skipped
}

// Shortfall is by how many percentage points the hit ratio of this library falls short of that of its engine: on average over the
// traces and capacities, and where it does so most. A single run differs by about a point from the next, since the engine hashes
// with a random seed and keeps its books in the background.
func Shortfall(ratios []Ratio) (mean, worst float64) {
	percent := map[string]float64{}
	for _, r := range ratios {
		percent[r.Case+r.Subject] = r.Percent
	}
	n := 0.0
	for _, r := range ratios {
		if r.Subject == RatioTarget.Subject {
			short := percent[r.Case+RatioTarget.Against] - r.Percent
			mean, worst, n = mean+short, max(worst, short), n+1
		}
	}
	return mean / n, worst
}

func ratioSubjects() []through {
	return append(throughs(),
		through{ristrettoName, throughRistretto(false)},
		through{ristrettoName + ", waiting after each set", throughRistretto(true)})
}

func throughRistretto(wait bool) func(int, getter) (getter, func()) {
	return func(capacity int, load getter) (getter, func()) {
		c := newRistretto(int64(capacity))
		return func(ctx context.Context, key string) (int, error) {
			if v, ok := c.Get(key); ok {
				return v, nil
			}
			v, err := load(ctx, key)
			c.SetWithTTL(key, v, 1, entryTTL)
			if wait {
				c.Wait()
			}
			return v, err
		}, c.Close
	}
}

func meanRatio(s through, capacity int, runs [][]string) float64 {
	loaded, read := 0.0, 0.0
	for _, reads := range runs {
		var loads atomic.Int64
		get, end := s.open(capacity, func(context.Context, string) (int, error) {
			return int(loads.Add(1)), nil
		})
		for _, key := range reads {
			_, _ = get(context.Background(), key)
		}
		end()
		loaded, read = loaded+float64(loads.Load()), read+float64(len(reads))
	}
	return 100 * (1 - loaded/read)
}

// bestFixed is the share of the reads that go to the most popular keys, in percent.
func bestFixed(runs [][]string, capacity int) float64 {
	hits, all := 0, 0
	for _, reads := range runs {
		popularity := map[string]int{}
		for _, key := range reads {
			popularity[key]++
		}
		counts := make([]int, 0, len(popularity))
		for _, n := range popularity {
			counts = append(counts, -n)
		}
		slices.Sort(counts)
		for _, n := range counts[:min(capacity, len(counts))] {
			hits -= n
		}
		all += len(reads)
	}
	return 100 * float64(hits) / float64(all)
}

// powers returns the sums of the weights 1/i^s.
func powers(s float64, n int) []float64 {
	cumulated := make([]float64, n)
	sum := 0.0
	for i := range cumulated {
		sum += math.Pow(float64(i+1), -s)
		cumulated[i] = sum
	}
	return cumulated
}

func zipfRuns(s float64, requests, runs int) func() ([][]string, error) {
	return func() ([][]string, error) {
		keys := keyNames(zipfKeys)
		all := make([][]string, runs)
		for run := range all {
			for _, i := range zipf(s, zipfKeys, requests, uint64(run)) {
				all[run] = append(all[run], keys[i])
			}
		}
		return all, nil
	}
}

// salesFile lies beside the repository, which does not contain it.
const salesFile = "shared/data/online-retail.csv.gz"

// saleRuns is the same order each time: what differs is what the caches do at random.
func saleRuns(requests, runs int) func() ([][]string, error) {
	return func() ([][]string, error) {
		sales, err := readSales(requests)
		if err != nil {
			return nil, err
		}
		return slices.Repeat([][]string{sales}, runs), nil
	}
}

func readSales(most int) (codes []string, err error) {
	f, err := openAbove(salesFile)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	lines := csv.NewReader(unzipped)
	lines.ReuseRecord = true
	if _, err := lines.Read(); err != nil { // the headings
		return nil, err
	}
	for len(codes) < most {
		record, err := lines.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		codes = append(codes, strings.Clone(record[1]))
	}
	return codes, nil
}

// openAbove looks for a file beside the folder it runs in and beside those above, up to three levels.
func openAbove(path string) (*os.File, error) {
	for range 3 {
		path = filepath.Join("..", path)
		f, err := os.Open(path)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, fmt.Errorf("%s is not beside the repository: %w", salesFile, fs.ErrNotExist)
}

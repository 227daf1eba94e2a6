package console

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// rules are how objects of a kind are shown and judged. The console knows kinds by the words of Describe and metrics by name; it
// imports none of the packages.
type rules struct {
	panel   string
	chart   string            // the metric of the timeline; "": the first
	watch   map[string]string // counters whose growth is an event, and what it says
	judge   func(*entry) verdict
	tellAll bool       // every change of the verdict is an event, not only of its level
	derive  *[2]string // names of two counters: the share of the first in both becomes a metric
}

// The panels, in the order in which the page has them.
const (
	panelBreakers      = "breakers"
	panelRetries       = "retries"
	panelLimits        = "limits"
	panelCaches        = "caches"
	panelSubscriptions = "subscriptions"
	panelOutboxes      = "outboxes"
	panelSagas         = "sagas"
	panelOthers        = "others"
)

type verdict struct {
	level Level
	why   string
}

// What an open breaker is called, and the counter of how often it was.
const (
	isOpen   = "open"
	openings = "opened_total"
)

// hitRatio is the name of a derived metric: the share of hits among the lookups of the latest seconds.
const hitRatio = "hit_ratio"

func rulesOf(kind string) rules {
	family, _, _ := strings.Cut(kind, ".")
	r := kinds[kind]
	if r.panel == "" {
		r = kinds[family]
	}
	if r.panel == "" {
		r = rules{panel: panelOthers}
		if strings.Contains(family, "pubsub") {
			r = rules{panel: panelSubscriptions, chart: "published_total"}
		}
	}
	if r.judge == nil {
		r.judge = judgeAny
	}
	return r
}

var kinds = map[string]rules{
	"breaker": {panel: panelBreakers, chart: "state", judge: judgeBreaker, tellAll: true,
		watch: map[string]string{openings: "opened between two looks"}},
	"breaker.Set": {panel: panelBreakers, chart: "open", judge: judgeBreakerSet, watch: map[string]string{"held_total": "not opened: too many are open"}},
	"retry":       {panel: panelRetries, chart: "retries_total", watch: map[string]string{"gave_up_total": "gave up"}},
	"retry budget": {panel: panelRetries, chart: "balance", judge: judgeBudget,
		watch: map[string]string{"refused_total": "retry refused"}},
	"timeout":   {panel: panelRetries, chart: "timed_out_total", watch: map[string]string{"timed_out_total": "timed out", "late_panics_total": "late panic"}},
	"hedge":     {panel: panelRetries, chart: "hedged_total", watch: map[string]string{"late_panics_total": "late panic"}},
	"fallback":  {panel: panelRetries, chart: "used_total", watch: map[string]string{"failed_total": "alternatives failed"}},
	"bulkhead":  {panel: panelLimits, chart: "running", judge: judgeBulkhead},
	"ratelimit": {panel: panelLimits, chart: "rejected_total"},
	"cache": {panel: panelCaches, chart: hitRatio, judge: judgeCache, derive: &[2]string{"hits_total", "misses_total"},
		watch: map[string]string{"load_failures_total": "load failed", "rejected_total": "write rejected"}},
	"pubsub.consumer": {panel: panelSubscriptions, chart: "handled_total", watch: map[string]string{
		"dead_lettered_total": "dead letter", "dead_letter_failed_total": "dead letter not published",
		"leases_lost_total": "lease lost", "dropped_total": "message dropped",
	}},
	"pubsub":       {panel: panelSubscriptions, chart: "published_total", watch: map[string]string{"publish_failed_total": "publish failed"}},
	"requestreply": {panel: panelSubscriptions, chart: "calls_total", watch: map[string]string{"in_doubt_total": "call in doubt", "panicked_total": "panic"}},
	"outbox":       {panel: panelOutboxes, chart: "stored_total"},
	"relay": {panel: panelOutboxes, chart: "pending", judge: judgeRelay,
		watch: map[string]string{"given_up_total": "message parked", "fenced_total": "batch fenced"}},
	"inbox": {panel: panelOutboxes, chart: "handled_total"},
	"saga": {panel: panelSagas, chart: "active", judge: judgeSaga, watch: map[string]string{
		"stuck_total": "saga stuck", "compensated_total": "saga compensated", "lost_total": "lease lost", "store_errors_total": "store failed",
	}},
}

// judgeAny takes the word of an object that has a method Health.
func judgeAny(e *entry) verdict {
	if e.unwell != "" {
		return verdict{Degraded, e.unwell}
	}
	return verdict{}
}

// unwell asks an object that has a method Health, and returns "" where nothing is wrong.
func unwell(o Object) (text string) {
	h, ok := o.(interface{ Health() error })
	if !ok {
		return ""
	}
	fault := guarded(func() {
		if err := h.Health(); err != nil {
			text = "unwell: " + clean(err.Error(), maxText)
		}
	})
	if fault != "" {
		return "Health " + fault
	}
	return text
}

func judgeBreaker(e *entry) verdict {
	switch state, _ := e.metric("state"); state {
	case 1:
		return verdict{Degraded, isOpen}
	case 2:
		return verdict{Degraded, "half-open"}
	default:
		return verdict{}
	}
}

func judgeBreakerSet(e *entry) verdict { return e.whenAny("open", "%s open") }

func judgeBudget(e *entry) verdict {
	if balance, ok := e.metric("balance"); ok && balance < 1 {
		return verdict{Degraded, "spent"}
	}
	return verdict{}
}

func judgeBulkhead(e *entry) verdict {
	running, _ := e.metric("running")
	if limit, ok := e.metric("limit"); ok && limit > 0 && running >= limit {
		return verdict{Degraded, "full"}
	}
	return verdict{}
}

func judgeCache(e *entry) verdict {
	if away, _ := e.metric("store_away"); away > 0 {
		return verdict{Degraded, "store away"}
	}
	return e.whenAny("refused", "%s writes refused for good")
}

// overdueAge is how old the oldest message of an outbox may be before it is worth a word.
const overdueAge = time.Minute

func judgeRelay(e *entry) verdict {
	if v := e.whenAny("parked", "%s parked"); v.level != OK {
		return v
	}
	if age, _ := e.metric("oldest_age_seconds"); age > overdueAge.Seconds() {
		return verdict{Degraded, "oldest waits for more than a minute"}
	}
	return verdict{}
}

func judgeSaga(e *entry) verdict {
	if v := e.whenAny("stuck_instances", "%s stuck"); v.level != OK {
		return v
	}
	return e.whenAny("unknown", "%s without a definition here")
}

func (e *entry) whenAny(metric, text string) verdict {
	if v, _ := e.metric(metric); v > 0 {
		return verdict{Degraded, fmt.Sprintf(text, strconv.FormatFloat(v, 'f', -1, 64))}
	}
	return verdict{}
}

// share is the share of one counter's growth in that of two, over some seconds.
type share struct {
	begun        bool
	last, recent [2]float64
	names        []string
	values       []float64
}

// derive appends the share to the metrics. Old growth fades to half in about seven looks.
func (s *share) derive(of *[2]string, names []string, values []float64) ([]string, []float64) {
	const fade = 0.9
	found := 0
	for i, name := range names {
		for j := range of {
			if name != of[j] {
				continue
			}
			found++
			grown := values[i]
			if s.begun {
				grown = max(0, values[i]-s.last[j])
			}
			s.recent[j] = s.recent[j]*fade + grown
			s.last[j] = values[i]
		}
	}
	if found < 2 {
		return names, values
	}
	s.begun = true
	ratio := math.NaN()
	if all := s.recent[0] + s.recent[1]; all > 1e-9 {
		ratio = math.Round(s.recent[0]/all*1e4) / 1e4
	}
	s.names = append(append(s.names[:0], names...), hitRatio)
	s.values = append(append(s.values[:0], values...), ratio)
	return s.names, s.values
}

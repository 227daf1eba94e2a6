package otelmetrics

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Dashboard returns a Grafana dashboard for what Register exports of the objects by way of Prometheus, as JSON to be imported: a row for
// each kind, a panel for each metric, counters as rates, one line for each object. The variables $datasource and $name choose
// the Prometheus and the objects. It asks each object once; the same kinds and metrics give the same bytes, whatever the names. The
// error joins what Register would refuse in an object and in names; series are not counted and names may repeat.
func Dashboard(title string, objects ...Object) ([]byte, error) {
	panels, err := panelsOf(objects)
	if err != nil {
		return nil, err
	}
	out, err := json.MarshalIndent(map[string]any{
		"title": title, "schemaVersion": 39, "editable": true, "refresh": "10s", "tags": []string{"backstay"},
		"time":       map[string]string{"from": "now-30m", "to": "now"},
		"templating": map[string]any{"list": variables()},
		"panels":     laidOut(panels),
	}, "", "  ")
	return append(out, '\n'), err
}

// panel is one metric of a kind.
type panel struct {
	kind   string
	series string
	metric metricName
	keys   []string // of labels
}

func panelsOf(objects []Object) ([]panel, error) {
	found := map[string]*panel{}
	var faults []error
	for i, o := range objects {
		if o == nil {
			faults = append(faults, fmt.Errorf("otelmetrics: object %d is nil", i))
			continue
		}
		err := guarded(func() {
			kind, _, _ := o.Describe()
			for name := range o.Metrics() {
				faults = append(faults, addPanel(found, kind, name))
			}
		})
		if err != nil {
			faults = append(faults, fmt.Errorf("otelmetrics: object %d: %w", i, err))
		}
	}
	panels := make([]panel, 0, len(found))
	for _, p := range found {
		panels = append(panels, *p)
	}
	slices.SortFunc(panels, func(a, b panel) int { return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.series, b.series)) })
	return panels, errors.Join(faults...)
}

func addPanel(found map[string]*panel, kind, name string) error {
	m, err := parse(name)
	if err != nil {
		return err
	}
	series, err := SeriesName(kind, m.base)
	if err != nil {
		return err
	}
	p := found[series]
	if p == nil {
		p = &panel{kind: strings.TrimSuffix(strings.TrimPrefix(scopePrefix(kind), "backstay."), "."), series: series, metric: m}
		found[series] = p
	}
	for _, label := range m.labels {
		if key := string(label.Key); !slices.Contains(p.keys, key) {
			p.keys = append(p.keys, key)
			slices.Sort(p.keys)
		}
	}
	return nil
}

// Grafana's grid is 24 wide.
const (
	panelWidth  = 6
	panelHeight = 6
	gridWidth   = 24
)

// laidOut is the panels of the dashboard, below a row for each kind.
func laidOut(panels []panel) []any {
	var out []any
	x, y, kind := 0, 0, ""
	for _, p := range panels {
		if p.kind != kind {
			if kind != "" {
				y += panelHeight
			}
			out = append(out, map[string]any{
				"id": len(out) + 1, "type": "row", "title": p.kind, "collapsed": false, "panels": []any{},
				"gridPos": map[string]int{"h": 1, "w": gridWidth, "x": 0, "y": y},
			})
			x, kind = 0, p.kind
			y++
		}
		if x == gridWidth {
			x = 0
			y += panelHeight
		}
		out = append(out, p.json(len(out)+1, x, y))
		x += panelWidth
	}
	return out
}

func (p panel) json(id, x, y int) map[string]any {
	custom := map[string]any{"unit": p.unit()}
	look := "timeseries"
	if p.series == "backstay_breaker_state" {
		look, custom["mappings"] = "state-timeline", breakerStates()
	}
	return map[string]any{
		"id": id, "type": look, "title": p.metric.base,
		"gridPos":     map[string]int{"h": panelHeight, "w": panelWidth, "x": x, "y": y},
		"datasource":  datasource(),
		"fieldConfig": map[string]any{"defaults": custom, "overrides": []any{}},
		"targets":     []any{map[string]any{"refId": "A", "datasource": datasource(), "expr": p.query(), "legendFormat": p.legend()}},
	}
}

// query is in PromQL. Rates of a service's processes are summed up; of levels, of
// which some are the whole store's and seen by all, the highest counts.
func (p panel) query() string {
	selected := p.series + `{backstay_name=~"$name"}`
	by := strings.Join(append([]string{"backstay_name"}, p.keys...), ", ")
	if p.metric.counter {
		return fmt.Sprintf("sum by (%s) (rate(%s[$__rate_interval]))", by, selected)
	}
	return fmt.Sprintf("max by (%s) (%s)", by, selected)
}

func (p panel) legend() string {
	keys := append([]string{"backstay_name"}, p.keys...)
	return "{{" + strings.Join(keys, "}} {{") + "}}"
}

func (p panel) unit() string {
	switch {
	case p.metric.counter && p.metric.seconds:
		return "percentunit" // seconds in a second
	case p.metric.counter:
		return "cps"
	case p.metric.seconds:
		return "s"
	default:
		return "short"
	}
}

func datasource() map[string]string {
	return map[string]string{"type": "prometheus", "uid": "${datasource}"}
}

func breakerStates() []any {
	state := func(text, color string) map[string]string { return map[string]string{"text": text, "color": color} }
	return []any{map[string]any{"type": "value", "options": map[string]any{
		"0": state("closed", "green"), "1": state("open", "red"), "2": state("half-open", "yellow"),
	}}}
}

func variables() []any {
	return []any{
		map[string]any{"name": "datasource", "type": "datasource", "query": "prometheus"},
		map[string]any{
			"name": "name", "type": "query", "datasource": datasource(), "multi": true, "includeAll": true, "refresh": 2, "allValue": ".*",
			"query":   map[string]string{"query": `label_values({__name__=~"backstay_.+"}, backstay_name)`, "refId": "name"},
			"current": map[string]any{"text": "All", "value": "$__all"},
		},
	}
}

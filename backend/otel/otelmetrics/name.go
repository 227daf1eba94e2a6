package otelmetrics

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
)

// NameKey is the attribute that holds an object's name.
const NameKey = attribute.Key("backstay.name")

var (
	nameRule  = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	otherSign = regexp.MustCompile(`[^a-z0-9.]+`)
)

const (
	maxName  = 200 // OpenTelemetry allows 255
	maxValue = 256
)

// metricName is what the name of a metric says.
type metricName struct {
	base    string // without labels, as the object gave it
	stem    string // without unit and _total
	counter bool
	seconds bool
	labels  []attribute.KeyValue
}

// parse reads a name by the rule of the package documentation.
func parse(name string) (m metricName, err error) {
	base, labels, labelled := strings.Cut(name, "{")
	if !nameRule.MatchString(base) || len(base) > maxName {
		return m, fmt.Errorf("otelmetrics: the metric name %.100q is not in snake_case", name)
	}
	m.base = base
	m.stem, m.counter = strings.CutSuffix(base, "_total")
	m.stem, m.seconds = strings.CutSuffix(m.stem, "_seconds")
	if labelled {
		m.labels, err = parseLabels(labels)
		if err != nil {
			return m, fmt.Errorf("otelmetrics: the labels of %.100q: %w", name, err)
		}
	}
	return m, nil
}

// parseLabels reads key="value",… and the closing brace.
func parseLabels(rest string) (labels []attribute.KeyValue, err error) {
	for {
		key, after, ok := strings.Cut(rest, "=")
		if !ok || !nameRule.MatchString(key) {
			return nil, fmt.Errorf("%.50q does not begin with a key in snake_case", rest)
		}
		quoted, err := strconv.QuotedPrefix(after)
		if err != nil || quoted[0] != '"' {
			return nil, fmt.Errorf("the value of %s is not in quotation marks", key)
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, err
		}
		labels = append(labels, attribute.String(key, clip(value)))
		rest = after[len(quoted):]
		if rest == "}" {
			return labels, nil
		}
		if rest, ok = strings.CutPrefix(rest, ","); !ok {
			return nil, fmt.Errorf("neither a comma nor the end follows the value of %s", key)
		}
	}
}

// instrumentName is what the metric is called in OpenTelemetry.
func (m metricName) instrumentName(kind string) string { return scopePrefix(kind) + m.stem }

// SeriesName returns what Prometheus calls a metric of an object of this kind: backstay_breaker_opened_total for breaker and
// opened_total. Labels are left out. The error says how the metric's name breaks the rule.
func SeriesName(kind, metric string) (string, error) {
	m, err := parse(metric)
	if err != nil {
		return "", err
	}
	return strings.ReplaceAll(scopePrefix(kind), ".", "_") + m.base, nil
}

func scopePrefix(kind string) string {
	kind = strings.Trim(otherSign.ReplaceAllString(strings.ToLower(clip(kind)), "_"), "._")
	if kind == "" {
		kind = "object"
	}
	return "backstay." + kind + "."
}

// clip bounds what an attribute holds, and makes it valid.
func clip(value string) string {
	if len(value) > maxValue {
		value = value[:maxValue]
	}
	if !utf8.ValidString(value) {
		value = strings.ToValidUTF8(value, "")
	}
	return value
}

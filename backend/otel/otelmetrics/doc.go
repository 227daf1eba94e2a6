// Package otelmetrics makes OpenTelemetry instruments of the numbers that objects already keep: of anything that has Describe and
// Metrics, as all of backstay's objects have, and a service's own may have.
//
//	reg, err := otelmetrics.Register(provider, otelmetrics.Config{}, breaker, retrier, relay)
//	…
//	defer reg.Close()
//
// # Guarantees
//
//   - Pull only: an object is asked when a reader collects, and at no other time. What the object protects pays nothing.
//   - One callback for each Register; Close unregisters it and waits for a collection under way.
//   - Bounded: which instruments there are is settled by Register, and each object has at most Config.MaxSeries series. What comes
//     beyond that is left out and counted, never exported.
//   - An object that panics when asked loses that collection's numbers, and the reader's error handler is told. The others do not.
//   - A series whose value is not a number is left out of that collection.
//
// # Names
//
// The metric opened_total of a breaker becomes the counter backstay.breaker.opened, which Prometheus spells
// backstay_breaker_opened_total; oldest_age_seconds of a relay the gauge backstay.relay.oldest_age with the unit s, which Prometheus
// spells backstay_relay_oldest_age_seconds. So:
//
//   - a name is made of lower-case letters, digits and single underscores, and begins with a letter;
//   - what ends in _total only grows and is a counter, all else is a gauge;
//   - a time is in seconds, and its name says _seconds, before _total if it is summed up;
//   - a name may go on with labels as Prometheus writes them, step_failures_total{step="book a room"}: they become attributes.
//     What labels are worth is the object's to bound.
//
// The kind of Describe is put into lower case, with an underscore for what is neither letter, digit nor dot. The name of Describe, as
// it was when the object was registered, is the attribute backstay.name. Two objects of one kind with one name would overwrite each
// other and are refused, as far as one Register sees them.
//
// OpenTelemetry has no semantic conventions for breakers, bulkheads, retries, caches and sagas; these names are backstay's own. The
// instrumentation scope has the [Version] of the set.
//
// [Dashboard] makes a Grafana dashboard of the same objects.
//
// # Sources
//
// OpenTelemetry's specification of the metrics API and its general naming rules; the OpenMetrics specification for units and _total.
package otelmetrics

package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
)

// tree prints the spans below their parents, siblings by name. It returns an error if they are of more than one trace.
func tree(out io.Writer, spans []trace.ReadOnlySpan) error {
	below := map[api.SpanID][]trace.ReadOnlySpan{}
	traces := map[api.TraceID]bool{}
	for _, s := range spans {
		below[s.Parent().SpanID()] = append(below[s.Parent().SpanID()], s)
		traces[s.SpanContext().TraceID()] = true
	}
	var show func(parent api.SpanID, depth int)
	show = func(parent api.SpanID, depth int) {
		children := below[parent]
		slices.SortFunc(children, func(a, b trace.ReadOnlySpan) int { return cmp.Compare(a.Name(), b.Name()) })
		for _, s := range children {
			fmt.Fprintf(out, "%s%s (%s)\n", strings.Repeat("  ", depth), s.Name(), s.SpanKind())
			show(s.SpanContext().SpanID(), depth+1)
		}
	}
	show(api.SpanID{}, 0)
	if len(traces) != 1 {
		return fmt.Errorf("there are %d traces, not one", len(traces))
	}
	return nil
}

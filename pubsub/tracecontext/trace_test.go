package tracecontext_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/tracecontext"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const parent = "00-12345678901234567890123456789012-1234567890123456-01"

func TestTraceparentIsReadStrictly(t *testing.T) {
	for value, want := range map[string]string{ // want is what goes on; empty: dropped
		parent:                      parent,
		" \t" + parent + "\t ":      parent,
		parent[:53] + "00":          parent[:53] + "00",
		parent[:53] + "ff":          parent[:53] + "ff", // flags of this version are the tracers' affair
		"cc" + parent[2:]:           parent,
		"cc" + parent[2:] + "-what": parent,
		"01" + parent[2:53] + "03":  parent,                                                   // a later version: the sampled flag alone
		"01" + parent[2:53] + "fe":  parent[:53] + "00",                                       //
		"cc" + parent[2:] + ".what": "", "cc" + parent[2:] + "0": "", "cc" + parent[2:54]: "", // not 2 digits of flags
		parent + ".": "", parent + "-what": "", parent + "-": "", parent + "0": "", // longer than version 00
		"ff" + parent[2:]: "", ".0" + parent[2:]: "", "0." + parent[2:]: "", "0" + parent: "", // version
		parent[1:]: "", "0A" + parent[2:]: "",
		"00-00000000000000000000000000000000-1234567890123456-01": "",
		"00-12345678901234567890123456789012-0000000000000000-01": "",
		"00-.2345678901234567890123456789012-1234567890123456-01": "",
		"00-1234567890123456789012345678901A-1234567890123456-01": "",
		"00-123456789012345678901234567890123-123456789012345-01": "",
		"00-12345678901234567890123456789012-123456789012345.-01": "",
		"00-12345678901234567890123456789012-123456789012345F-01": "",
		"00-12345678901234567890123456789012-1234567890123456-0.": "",
		"00-12345678901234567890123456789012-1234567890123456-1":  "",
		"00_12345678901234567890123456789012-1234567890123456-01": "",
		"00-12345678901234567890123456789012_1234567890123456-01": "",
		"00-12345678901234567890123456789012-1234567890123456_01": "",
		"": "", parent + ", " + parent: "",
	} {
		got, err := tracecontext.Parse(value, "rojo=1")
		if want == "" {
			require.Error(t, err, value)
			require.Zero(t, got, value)
			continue
		}
		require.NoError(t, err, value)
		require.Equal(t, want, got.Traceparent(), value)
		require.Equal(t, "rojo=1", got.State, value)
		require.Equal(t, want[54] == '1' || want[54] == 'f', got.Sampled(), value)
	}
}

func members(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("bar%02d=%02d", i, i)
	}
	return strings.Join(list, ",")
}

func TestTracestateIsReadStrictly(t *testing.T) {
	var printable strings.Builder
	for c := byte(' '); c <= '~'; c++ {
		if c != ',' && c != '=' {
			printable.WriteByte(c)
		}
	}
	z := func(n int) string { return strings.Repeat("z", n) }
	for _, valid := range []string{
		"foo=1", "foo=1,bar=2", "foo=1 \t , \t bar=2, \t baz=3", "foo=1,,bar=2,", ",foo=1", members(32),
		"a0_-*/=1", "a0_-*/@a-z0-9_-*/=1", "0tenant@sys=1", "foo= 1", "foo=" + printable.String(),
		z(256) + "=1", z(241) + "@" + z(14) + "=1", "foo=" + z(256),
	} {
		got, err := tracecontext.Parse(parent, valid)
		require.NoError(t, err)
		require.Equal(t, valid, got.State)
	}
	got, err := tracecontext.Parse(parent, "\t foo=1 \t")
	require.NoError(t, err)
	require.Equal(t, "foo=1", got.State)
	for _, invalid := range []string{
		"", " ", ",", "foo", "foo=", "=1", "foo=1,foo=1", "foo=1,bar=2,foo=3", "foo =1", "FOO=1", "foo.bar=1", "0foo=1",
		"foo@=1", "@foo=1", "foo@@bar=1", "foo@bar@baz=1", "foo@0=1", "_foo=1", "foo=bar=baz", "foo=,bar=3", "foo=\x7f",
		"foo=é", "foo=a\tb", "foo=1,bar", members(33), members(32) + ",", z(257) + "=1", z(242) + "@v=1", "t@" + z(15) + "=1",
		"foo=" + z(257), "foo=1;bar=2", "foo=1\n,bar=2",
	} {
		got, err := tracecontext.Parse(parent, invalid)
		require.NoError(t, err, "a bad tracestate must not affect traceparent")
		require.Empty(t, got.State, "%q", invalid)
		require.Equal(t, parent, got.Traceparent())
	}
}

// member is a member of a tracestate with n bytes.
func member(i, n int) string { return fmt.Sprintf("m%02d=%s", i, strings.Repeat("x", n-4)) }

func TestALongTracestateLosesWholeMembers(t *testing.T) {
	for name, c := range map[string]struct {
		sizes []int // of the members
		kept  []int // their indexes
	}{
		"4096 bytes go on":         {append(slices.Repeat([]int{256}, 15), 241), seq(0, 16)},
		"4097 bytes lose one":      {append(slices.Repeat([]int{256}, 15), 242), seq(0, 15)},
		"long ones go first":       {append(slices.Repeat([]int{128}, 30), 129, 200), seq(0, 31)},
		"wherever they are":        {append([]int{400}, slices.Repeat([]int{128}, 31)...), seq(1, 32)},
		"the last of them first":   {append([]int{200, 200}, slices.Repeat([]int{124}, 30)...), append([]int{0}, seq(2, 32)...)},
		"others from the end":      {slices.Repeat([]int{128}, 32), seq(0, 31)},
		"no more than is needed":   {append([]int{129}, slices.Repeat([]int{128}, 30)...), seq(0, 31)},
		"only the long, if enough": {append(slices.Repeat([]int{128}, 30), 400, 128), append(seq(0, 30), 31)},
	} {
		var sent, want []string
		for i, n := range c.sizes {
			sent = append(sent, member(i, min(n, 256+4)))
			if n > 260 { // a long key instead of a long value
				sent[i] = strings.Repeat("k", n-201) + "=" + strings.Repeat("x", 200)
			}
		}
		for _, i := range c.kept {
			want = append(want, sent[i])
		}
		got, err := tracecontext.Parse(parent, strings.Join(sent, ","))
		require.NoError(t, err)
		require.Equal(t, strings.Join(want, ","), got.State, name)
	}

	var exact []string
	for i := range 16 {
		exact = append(exact, member(i, 256))
	}
	exact[15] = member(15, 241)
	got, err := tracecontext.Parse(parent, strings.Join(exact, ", "))
	require.NoError(t, err)
	require.Equal(t, strings.Join(exact, ","), got.State, "4096 bytes without the spaces, which go first")
}

func seq(from, to int) []int {
	var all []int
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

func TestContextCarriesATrace(t *testing.T) {
	_, ok := tracecontext.FromContext(context.Background())
	require.False(t, ok)
	want, err := tracecontext.Parse(parent, "rojo=1")
	require.NoError(t, err)
	ctx := tracecontext.NewContext(context.Background(), want)
	got, ok := tracecontext.FromContext(ctx)
	require.True(t, ok)
	require.Equal(t, want, got)
	_, ok = tracecontext.FromContext(tracecontext.NewContext(ctx, tracecontext.Trace{}))
	require.False(t, ok, "the zero Trace hides")
}

// recorder keeps what is published.
type recorder struct{ msgs []pubsub.Message }

func (r *recorder) Publish(_ context.Context, msgs ...pubsub.Message) error {
	r.msgs = append(r.msgs, msgs...)
	return nil
}

func TestPublisherWritesIntoACopy(t *testing.T) {
	trace, err := tracecontext.Parse(parent, "rojo=1")
	require.NoError(t, err)
	ctx := tracecontext.NewContext(context.Background(), trace)
	given := []pubsub.Message{
		{ID: "1"},
		{ID: "2", Header: pubsub.Header{"a": "b", "TraceState": "stale=1"}},
		{ID: "3", Header: pubsub.Header{"Traceparent": "its own"}},
	}
	var out recorder
	require.NoError(t, tracecontext.Publisher(&out).Publish(ctx, given...))
	require.Equal(t, pubsub.Header{"traceparent": parent, "tracestate": "rojo=1"}, out.msgs[0].Header)
	require.Equal(t, pubsub.Header{"a": "b", "traceparent": parent, "tracestate": "rojo=1"}, out.msgs[1].Header)
	require.Equal(t, pubsub.Header{"Traceparent": "its own"}, out.msgs[2].Header)
	require.Nil(t, given[0].Header, "the caller's message is not changed")
	require.Equal(t, pubsub.Header{"a": "b", "TraceState": "stale=1"}, given[1].Header)

	trace.State = ""
	require.NoError(t, tracecontext.Publisher(&out).Publish(tracecontext.NewContext(ctx, trace), given[0]))
	require.Equal(t, pubsub.Header{"traceparent": parent}, out.msgs[3].Header, "an empty tracestate is not sent")
	require.NoError(t, tracecontext.Publisher(&out).Publish(context.Background(), given[1]))
	require.Equal(t, given[1], out.msgs[4])
	require.Panics(t, func() { tracecontext.Publisher(nil) })
}

func TestHandlerFindsTheTrace(t *testing.T) {
	stale, err := tracecontext.Parse("00-99999999999999999999999999999999-1234567890123456-01", "")
	require.NoError(t, err)
	for _, c := range []struct {
		header             pubsub.Header
		wantParent, wantTS string
	}{
		{pubsub.Header{"traceparent": parent, "tracestate": "rojo=1"}, parent, "rojo=1"},
		{pubsub.Header{"TraceParent": parent, "TRACESTATE": "rojo=1"}, parent, "rojo=1"},
		{pubsub.Header{"traceparent": parent, "tracestate": "ROJO=1"}, parent, ""},
		{pubsub.Header{"traceparent": parent, "tracestate": "a=1", "Tracestate": "b=1"}, parent, ""},
		{pubsub.Header{"traceparent": parent, "Traceparent": parent}, "", ""},
		{pubsub.Header{"trace-parent": parent}, "", ""},
		{pubsub.Header{"tracestate": "rojo=1"}, "", ""},
		{nil, "", ""},
	} {
		h := tracecontext.Handler(func(ctx context.Context, _ pubsub.Message) error {
			got, ok := tracecontext.FromContext(ctx)
			require.Equal(t, c.wantParent != "", ok)
			if ok {
				require.Equal(t, c.wantParent, got.Traceparent())
			}
			require.Equal(t, c.wantTS, got.State)
			return context.Canceled
		})
		err := h(tracecontext.NewContext(context.Background(), stale), pubsub.Message{Header: c.header})
		require.ErrorIs(t, err, context.Canceled)
	}
	require.Panics(t, func() { tracecontext.Handler(nil) })
}

func FuzzParse(f *testing.F) {
	f.Add(parent, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")
	f.Add("cc"+parent[2:]+"-future", "a@b=c")
	f.Add(" "+parent, " a=1, ,b=2 ")
	f.Add(parent, "a="+strings.Repeat("x", 256)+strings.Repeat(",", 31))
	f.Fuzz(func(t *testing.T, traceparent, tracestate string) {
		got, err := tracecontext.Parse(traceparent, tracestate)
		if err != nil {
			require.Zero(t, got)
			return
		}
		require.True(t, got.Valid())
		require.Contains(t, traceparent, got.Traceparent()[3:53], "the IDs go on as they came")
		require.LessOrEqual(t, len(got.State), 4096)
		again, err := tracecontext.Parse(got.Traceparent(), got.State)
		require.NoError(t, err)
		require.Equal(t, got, again)
	})
}

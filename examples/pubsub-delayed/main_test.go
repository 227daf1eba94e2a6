package main

import (
	"bytes"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/pubsub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The reminders are in order where the broker is back before the first one of the future is due. On a machine that takes longer
// to start it, several are due at once, and another run is made.
func TestTheStory(t *testing.T) {
	var out bytes.Buffer
	for try := 1; ; try++ {
		out.Reset()
		err := run(t.Context(), &out)
		if try < 10 && backAfter(t, out.String()) > 1.5 {
			t.Log("the machine is busy:", out.String())
			continue
		}
		require.NoError(t, err, &out)
		break
	}
	require.Regexp(t, `^3 reminders are published
the broker is started again
after \d+\.\d s: welcome
after \d+\.\d s: rate the tea
after \d+\.\d s: pay the invoice
$`, out.String())
}

// backAfter is when the story saw its first reminder, in seconds.
func backAfter(t *testing.T, story string) float64 {
	t.Helper()
	first := regexp.MustCompile(`after (\d+\.\d) s: `).FindStringSubmatch(story)
	if first == nil {
		return 0
	}
	seconds, err := strconv.ParseFloat(first[1], 64)
	require.NoError(t, err)
	return seconds
}

func TestWhatComesTooEarlyIsAnError(t *testing.T) {
	d := &diary{out: new(bytes.Buffer), due: map[string]time.Time{"": {}, "tomorrow": time.Now().Add(24 * time.Hour)}}
	require.NoError(t, d.send(t.Context(), pubsub.Message{Payload: []byte("tomorrow")}))
	require.ErrorContains(t, d.wrong, `"tomorrow" came 2`)
}

package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestSafe(t *testing.T) {
	for text, want := range map[string]string{
		"plain ä ✓": "plain ä ✓", "a\nb": `a\nb`, "\x1b[2J": `\u001b[2J`, "\xff": `\xff`, `\n`: `\\n`, "\u202e": `\u202e`, "\U000e0001": `\U000e0001`,
		"\u009b": `\u009b`, "\u2028": `\u2028`, "\r\t\x00": `\r\t\u0000`,
	} {
		require.Equal(t, want, safe(text, 100))
	}
	require.Equal(t, "ab… (3 bytes more)", safe("abcde", 2))
	require.Equal(t, "a… (2 bytes more)", safe("aä", 2), "a character is not cut")
}

func FuzzSafe(f *testing.F) {
	f.Add("\x1b[31m\u009b\u202e\xff\nä", 5)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		if limit < 0 || limit > 1000 {
			limit = 10
		}
		for _, shown := range []string{safe(text, limit), safeLines(text, limit)} {
			require.True(t, utf8.ValidString(shown))
			for _, r := range shown {
				require.True(t, unicode.IsGraphic(r) || r == '\n')
			}
		}
		var out bytes.Buffer
		require.NoError(t, writeJSON(&out, map[string]string{"text": text}))
		require.True(t, json.Valid(out.Bytes()))
		for _, r := range out.String() {
			require.True(t, unicode.IsGraphic(r) || r == '\n')
		}
		writePayload(&out, []byte(text), limit)
	})
}

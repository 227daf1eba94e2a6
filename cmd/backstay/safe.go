package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// maxError bounds the text of an error, in bytes.
const maxError = 4000

// safe is text that a terminal shows and does not obey: control and invisible characters are escaped, also those that change the
// direction of writing. Of a text longer than limit bytes the rest is counted.
func safe(text string, limit int) string {
	var out strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		if i+size > limit {
			fmt.Fprintf(&out, "… (%d bytes more)", len(text)-i)
			break
		}
		writeRune(&out, r, text[i:i+size])
		i += size
	}
	return out.String()
}

func writeRune(out *strings.Builder, r rune, text string) {
	switch {
	case r == utf8.RuneError && len(text) == 1:
		fmt.Fprintf(out, `\x%02x`, text[0])
	case r == '\\':
		out.WriteString(`\\`)
	case r == '\n':
		out.WriteString(`\n`)
	case r == '\t':
		out.WriteString(`\t`)
	case r == '\r':
		out.WriteString(`\r`)
	case unicode.IsGraphic(r):
		out.WriteRune(r)
	case r < 0x10000:
		fmt.Fprintf(out, `\u%04x`, r)
	default:
		fmt.Fprintf(out, `\U%08x`, r)
	}
}

// safeLines is safe of each line of text.
func safeLines(text string, limit int) string {
	more := max(0, len(text)-limit)
	if more > 0 {
		text = text[:limit]
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = safe(line, limit)
	}
	text = strings.Join(lines, "\n")
	if more > 0 {
		text += fmt.Sprintf("… (%d bytes more)", more)
	}
	return text
}

// writePayload shows the first limit bytes of a payload: text line by line, indented so that no line can pass for the command's own,
// anything else as a hex dump.
func writePayload(w io.Writer, payload []byte, limit int) {
	shown := payload[:min(len(payload), limit)]
	if utf8.Valid(payload) {
		for len(shown) > 0 && !utf8.Valid(shown) {
			shown = shown[:len(shown)-1] // half a character at the end
		}
		text := strings.ReplaceAll(safeLines(string(shown), len(shown)), "\n", "\n  ")
		fmt.Fprintf(w, "  %s\n", text)
	} else {
		dump := strings.TrimSuffix(hex.Dump(shown), "\n")
		fmt.Fprintf(w, "  %s\n", strings.ReplaceAll(dump, "\n", "\n  "))
	}
	if more := len(payload) - len(shown); more > 0 {
		fmt.Fprintf(w, "  … %d bytes more: -bytes N shows N, -payload writes all of them\n", more)
	}
}

// writeJSON writes v as JSON in which everything that a terminal might obey is escaped.
func writeJSON(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	var out strings.Builder
	for _, r := range string(text) {
		switch {
		case r == '\n' || unicode.IsGraphic(r):
			out.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		}
	}
	_, err = fmt.Fprintln(w, out.String())
	return err
}

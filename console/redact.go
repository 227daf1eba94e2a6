package console

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"unicode/utf8"
)

// struckOut stands in place of a secret.
const struckOut = "(hidden)"

var (
	secretName = regexp.MustCompile(`(?i)pass(word|wd|phrase)?$|secret|token|credential|private|api_?key|auth`)
	secretURL  = regexp.MustCompile(`(://[^/\s:@]*):[^/\s@]*@`)
)

// configOf is an object's configuration as JSON that may be shown.
func configOf(o Object) (b []byte) {
	fault := guarded(func() {
		_, _, config := o.Describe()
		text, err := json.Marshal(config)
		switch {
		case err != nil:
			b = note("the configuration is no JSON: " + err.Error())
		case len(text) > maxConfig:
			b = note("the configuration has more than 64 kB")
		default:
			b = redact(text)
		}
	})
	if fault != "" {
		return note("Describe " + fault)
	}
	return b
}

func note(text string) []byte { return quoted(clean(text, maxText)) }

func redact(text []byte) []byte {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return note("the configuration is no JSON")
	}
	out, err := json.Marshal(redacted(v))
	if err != nil {
		return note("the configuration is no JSON")
	}
	return out
}

func redacted(v any) any {
	switch v := v.(type) {
	case map[string]any:
		shown := make(map[string]any, len(v))
		for name, value := range v {
			if _, text := value.(string); text && secretName.MatchString(name) && value != "" {
				value = struckOut
			}
			shown[visible(name)] = redacted(value)
		}
		return shown
	case []any:
		for i := range v {
			v[i] = redacted(v[i])
		}
		return v
	case string:
		return secretURL.ReplaceAllString(visible(v), "$1:"+struckOut+"@")
	default:
		return v
	}
}

// visible replaces characters that cannot be seen or turn round the text beside them, and keeps line breaks.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && invisible(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

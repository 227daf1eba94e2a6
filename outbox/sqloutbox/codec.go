package sqloutbox

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/backstay-go/backstay/pubsub"
)

// EncodeHeader is the text of h in the column header: its JSON, or nothing for an empty one. It is for stores that share these tables.
func EncodeHeader(h pubsub.Header) (string, error) {
	if len(h) == 0 {
		return "", nil
	}
	text, err := json.Marshal(h)
	return string(text), err
}

// DecodeHeader reads what EncodeHeader has written. What it cannot read is an error for Record.Fault, and then there is no header.
func DecodeHeader(text string) (pubsub.Header, error) {
	if text == "" {
		return nil, nil
	}
	var h pubsub.Header
	if err := json.Unmarshal([]byte(text), &h); err != nil {
		return nil, fmt.Errorf("the stored header cannot be read: %w", err)
	}
	return h, nil
}

// ErrorText is the text of err in the column error: valid UTF-8 without zero bytes, which every database stores. A failure that could not be
// recorded would be repeated for ever. It is for stores that share these tables.
func ErrorText(err error) string {
	return strings.ReplaceAll(strings.ToValidUTF8(err.Error(), "\uFFFD"), "\x00", "\uFFFD")
}

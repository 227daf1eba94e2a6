package pubsub

import "strings"

// deadPrefix begins the names of the headers that only a dead letter has.
const deadPrefix = "backstay-dead-"

// Headers of a dead letter, beside those of the message itself.
const (
	// HeaderReason says why: "attempts" (the limit was reached), "handler" (the handler asked for it) or "held" (an
	// earlier message of the key is a dead letter, see Subscription.HoldKey).
	HeaderReason = "backstay-dead-reason"
	// HeaderAttempts is the number of attempts made, in decimal.
	HeaderAttempts = "backstay-dead-attempts"
	// HeaderFirstError is the text of the first failure that the consumer has seen of this message, shortened.
	HeaderFirstError = "backstay-dead-first-error"
	// HeaderLastError is the text of the last failure, shortened.
	HeaderLastError = "backstay-dead-last-error"
	// HeaderTopic is the topic that the message was published to.
	HeaderTopic = "backstay-dead-topic"
	// HeaderGroup is the group that could not handle it.
	HeaderGroup = "backstay-dead-group"
)

// HeaderRedrive marks a message that Bus.Redrive has sent back: the group that it is for, a slash, and a name for this
// one redrive. Other groups of the topic acknowledge it unhandled.
const HeaderRedrive = "backstay-redrive"

// DedupID is the name under which a broker that drops duplicates is to know m: its ID, and for a redriven message one of
// its own, or the broker might take it for the message that failed.
func DedupID(m Message) string {
	if redrive, ok := m.Header[HeaderRedrive]; ok {
		return m.ID + "/" + redrive
	}
	return m.ID
}

// DeadLetterTopic is where the messages of topic go that the group could not handle. It is a topic like any other: open
// it with Start "start" to read what is there. Messages keep their ID, Key, Payload, Time and Header.
func DeadLetterTopic(topic, group string) string { return topic + ".dead." + group }

// headerText makes an error's text fit for a header of every broker: one line, valid UTF-8, at most 1 KiB.
func headerText(text string) string {
	const limit = 1 << 10
	if len(text) > limit {
		text = text[:limit]
	}
	return strings.Join(strings.Fields(strings.ToValidUTF8(text, "")), " ")
}

// failures remembers, by message ID, what a message that comes back has been through. It forgets arbitrary ones when
// full, since a message may come back to another member and never here.
type failures map[string]failure

type failure struct {
	first string // the first error that was seen here
	dead  *death // set when only its dead letter remains to be published
}

const maxFailures = 1024

// note adds what f knows and m does not.
func (m *failures) note(id string, f failure) {
	old, ok := (*m)[id]
	if !ok && len(*m) >= maxFailures {
		for other := range *m {
			delete(*m, other)
			break
		}
	}
	if *m == nil {
		*m = make(failures)
	}
	if old.first != "" {
		f.first = old.first
	}
	if f.dead == nil {
		f.dead = old.dead
	}
	(*m)[id] = f
}

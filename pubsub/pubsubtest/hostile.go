package pubsubtest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/backstay-go/backstay/pubsub"
)

// odd are names that a driver may confuse when it spells them for its broker; those of groups have no dots.
var odd = []string{
	"abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "0", "-", "_", "--", "a-b", "a_b", "ab", "A-B",
	"a.b", "A.B", "a.b.c", "a.-.b", strings.Repeat("x", 230), strings.Repeat("x", 229) + "y",
}

// oddNames checks that what has a name of its own is a thing of its own, and that no other name is accepted.
func oddNames(e *env) {
	for c := range 256 {
		name := fmt.Sprintf("odd%cname", c)
		if c >= 0x80 {
			name = "odd" + string([]byte{byte(c)}) + "name" // not UTF-8
		}
		err := e.bus.Publish(e.soon(), pubsub.Message{Topic: name})
		var pe *pubsub.PublishError
		switch {
		case err == nil:
			if c != '.' && c != '-' && c != '_' && !isAlnum(byte(c)) {
				e.Errorf("topic %q was accepted", name)
			}
		case !errors.As(err, &pe) || !isPermanent(pe.Failed[0].Err):
			e.Errorf("topic %q: %v, want a permanent failure", name, err)
		}
	}

	boxes := make(map[string]*inbox)
	for _, name := range odd {
		boxes[name] = e.inbox()
		s := e.sub("g")
		s.Topic = name
		e.consume(s, boxes[name].ok)
	}
	var groups []*inbox
	for _, name := range odd {
		if strings.Contains(name, ".") || len(name) > 30 {
			continue
		}
		in := e.inbox()
		groups = append(groups, in)
		e.consume(e.sub(name), in.ok)
	}
	var msgs []pubsub.Message
	for _, name := range odd {
		msgs = append(msgs, pubsub.Message{ID: name, Topic: name})
	}
	e.publish(msgs...)
	last := pubsub.Message{ID: "last", Topic: topic}
	e.publish(last)
	for i, name := range odd {
		boxes[name].once(msgs[i : i+1]) // and no other
		if n := len(boxes[name].ch); n > 0 {
			e.Errorf("topic %q got %d messages more", name, n)
		}
	}
	for _, in := range groups {
		in.once([]pubsub.Message{last})
	}
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func isPermanent(err error) bool {
	p, ok := err.(interface{ Permanent() bool })
	return ok && p.Permanent()
}

// foreignMessages checks that what this library would not publish does no harm: it is refused, or what arrives is sound.
func foreignMessages(e *env) {
	in := e.inbox()
	e.consume(e.sub("g"), in.ok)
	for name, header := range map[string]map[string][]string{
		"nothing":    nil,
		"two values": {"twice": {"one", "two"}},
		"no values":  {"none": {}},
		"empty":      {"none": {""}},
	} {
		if err := e.h.Foreign(e.soon(), e.raw, topic, header, []byte(name)); err != nil {
			e.Logf("%s: refused: %v", name, err)
			continue
		}
		got := in.next()
		if string(got.Payload) != name || got.Topic != topic || got.Attempt != 1 || got.ID == "" || got.Time.IsZero() {
			e.Errorf("%s: got %+v", name, got)
		}
		for h, values := range header {
			if v := got.Header[h]; v != strings.Join(values, ", ") && v != strings.Join(values, ",") {
				e.Errorf("%s: header %s is %q, want %q joined", name, h, v, values)
			}
		}
	}
	last := numbered("last", 1)
	e.publish(last...)
	in.once(last)
}

// duplicatesDropped checks that a message counts once however often it is published, and that nothing else is dropped.
func duplicatesDropped(e *env) {
	in, elsewhere := e.inbox(), e.inbox()
	c := e.open(e.bus, e.sub("g"))
	dead := e.deadLetters("g")
	e.run(c, in.ok)
	s := e.sub("g")
	s.Topic = "elsewhere"
	e.consume(s, elsewhere.ok)
	m := pubsub.Message{ID: "again", Topic: topic, Payload: []byte("1")}
	e.publish(m, m)
	for range 3 {
		e.publish(m)
	}
	other := m
	other.Topic = s.Topic
	e.publish(other) // the same ID on another topic is another message
	elsewhere.once([]pubsub.Message{other})

	letter := m // and so are its dead letter and what is redriven
	letter.Topic = pubsub.DeadLetterTopic(topic, "g")
	e.publish(letter)
	dead.once([]pubsub.Message{letter})
	redriven := m
	redriven.Header = pubsub.Header{pubsub.HeaderRedrive: "g/first"}
	e.publish(redriven)
	e.publish(redriven)
	redriven.Header = pubsub.Header{pubsub.HeaderRedrive: "g/second"}
	e.publish(redriven)
	last := pubsub.Message{ID: "last", Topic: topic}
	e.publish(last)

	got := make(map[string]int)
	for got["last"] == 0 || len(got) < 4 {
		next := in.next()
		name := next.Header[pubsub.HeaderRedrive]
		if next.ID == "last" {
			name = "last"
		}
		got[name]++
	}
	for name, n := range got {
		if n != 1 {
			e.Errorf("message %q came %d times, want once", name, n)
		}
	}
}

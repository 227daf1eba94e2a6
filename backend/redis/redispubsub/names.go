package redispubsub

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// topic has the names of a topic's keys. They have one hash tag, so that a cluster keeps them on one node, where scripts
// can see them together. Neither prefix nor topic has a brace, and groups have no ':', so names never meet.
type topic struct {
	name  string
	tag   string
	lanes []string // streams
}

func newTopic(cfg Config, name string) *topic {
	t := &topic{name: name, tag: "{" + cfg.Prefix + "." + name + "}", lanes: make([]string, cfg.Lanes)}
	for i := range t.lanes {
		t.lanes[i] = t.tag + ":" + strconv.Itoa(i)
	}
	return t
}

// meta is a hash: the number of lanes, and the mode and the lease of every group.
func (t *topic) meta() string { return t.tag + ":meta" }

// members is a sorted set of those who are at work, by the time until which they are believed to be.
func (t *topic) members(group string) string { return t.tag + ":members:" + group }

// present is the same for those who hold a temporary group.
func (t *topic) present(group string) string { return t.tag + ":present:" + group }

// state is a hash: who has which lane of an ordered group, since when, and what is settled.
func (t *topic) state(group string) string { return t.tag + ":state:" + group }

// bell is a stream by which others wake a member up.
func (t *topic) bell(group, member string) string { return t.tag + ":bell:" + group + ":" + member }

// lane is the lane of a message: FNV-1a of the key, or of the ID for a message without one.
func (t *topic) lane(key, id string) int {
	if key == "" {
		key = id
	}
	h := uint32(2166136261)
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return int(h % uint32(len(t.lanes)))
}

// streamID is the ID of an entry of a stream.
type streamID struct{ ms, seq uint64 }

func parseID(text string) (streamID, error) {
	left, right, ok := strings.Cut(text, "-")
	ms, err := strconv.ParseUint(left, 10, 64)
	if err != nil || !ok {
		return streamID{}, fmt.Errorf("redispubsub: %q is no ID of a stream entry", text)
	}
	seq, err := strconv.ParseUint(right, 10, 64)
	if err != nil {
		return streamID{}, fmt.Errorf("redispubsub: %q is no ID of a stream entry", text)
	}
	return streamID{ms, seq}, nil
}

func (id streamID) compare(other streamID) int {
	if c := cmp.Compare(id.ms, other.ms); c != 0 {
		return c
	}
	return cmp.Compare(id.seq, other.seq)
}

func (id streamID) String() string {
	b := make([]byte, 0, 32)
	b = strconv.AppendUint(b, id.ms, 10)
	b = append(b, '-')
	return string(strconv.AppendUint(b, id.seq, 10))
}

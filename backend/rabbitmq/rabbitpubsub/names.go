package rabbitpubsub

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
)

// maxNameLen is the longest name of an exchange or queue.
const maxNameLen = 255

// Names are parts joined by colons, which neither topics nor groups have.

func (c Config) exchange(topic string) string { return short(c.Prefix + ":" + topic) }

// unrouted is the exchange of messages that no group of the topic takes. Its name has the number of lanes: the broker
// refuses to declare a topic with another one, so two services cannot disagree about it.
func (c Config) unrouted(topic string) string {
	return short(c.Prefix + ":" + topic + "::unrouted:" + strconv.Itoa(c.Lanes))
}

// kept is the queue of dead letters that nobody has read yet.
func (c Config) kept(topic string) string { return short(c.Prefix + ":" + topic + "::kept") }

// members is the queue that all members of an ordered group consume, to be counted, and wanting that of those which have too
// few lanes. They get no messages.
func (c Config) members(topic, group string) string {
	return short(c.Prefix + ":" + topic + ":" + group + "::members")
}

func (c Config) wanting(topic, group string) string {
	return short(c.Prefix + ":" + topic + ":" + group + "::wanting")
}

// queue is that of a group, or of one of its lanes. The first lane has the name that an unordered group would have, and
// other arguments: the broker refuses to declare a group both ways.
func (c Config) queue(topic, group string, lane int) string {
	name := c.Prefix + ":" + topic + ":" + group
	if lane > 0 {
		name += ":" + strconv.Itoa(lane)
	}
	return short(name)
}

// short replaces the end of a name that is too long by a hash of it.
func short(name string) string {
	if len(name) <= maxNameLen {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	end := "~" + hex.EncodeToString(sum[:16])
	return name[:maxNameLen-len(end)] + end
}

// lane is where a message belongs: the FNV-1a hash of its key, or of its ID if it has none.
func (c Config) lane(key, id string) int {
	if key == "" {
		key = id
	}
	h := uint32(2166136261)
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return int(h % uint32(c.Lanes))
}

package redispubsub

import (
	"errors"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/backstay-go/backstay/pubsub"
)

// Names of the fields that carry what is not the caller's: attributes of CloudEvents 1.0, and the payload. What is the
// same for all messages of a stream (source, type, specversion) is not repeated in each.
const (
	fieldID   = "ce-id"
	fieldTime = "ce-time"
	fieldKey  = "ce-partitionkey"
	fieldData = "ce-data"
)

// encoder makes XADD commands. It is for one goroutine.
type encoder struct {
	client rueidis.Client
	time   time.Time
	stamp  string
}

// add is the command that appends m to its lane.
func (e *encoder) add(t *topic, m *pubsub.Message) rueidis.Completed {
	if e.stamp == "" || !m.Time.Equal(e.time) {
		e.time, e.stamp = m.Time, m.Time.UTC().Format(time.RFC3339Nano)
	}
	fields := e.client.B().Xadd().Key(t.lanes[t.lane(m.Key, m.ID)]).Id("*").FieldValue().
		FieldValue(fieldID, m.ID).FieldValue(fieldTime, e.stamp)
	if m.Key != "" {
		fields = fields.FieldValue(fieldKey, m.Key)
	}
	for name, value := range m.Header {
		fields = fields.FieldValue(name, value)
	}
	return fields.FieldValue(fieldData, rueidis.BinaryString(m.Payload)).Build()
}

// decoder makes messages of entries. It is for one goroutine.
type decoder struct {
	topic string
	stamp string
	time  time.Time
}

var errEntry = errors.New("an entry of the stream is not as Redis writes it")

// entry reads [ID, [field, value, …]], whoever wrote it: a field that comes several times is joined, and what is missing
// is filled from the entry's ID. ok is false for an entry that has been deleted.
func (d *decoder) entry(e rueidis.RedisMessage) (id string, m pubsub.Message, ok bool, err error) {
	pair, err := e.ToArray()
	if err != nil || len(pair) != 2 {
		return "", m, false, errors.Join(errEntry, err)
	}
	if id, err = pair[0].ToString(); err != nil {
		return "", m, false, err
	}
	if pair[1].IsNil() {
		return id, m, false, nil
	}
	fields, err := pair[1].ToArray()
	if err != nil || len(fields)%2 != 0 {
		return "", m, false, errors.Join(errEntry, err)
	}
	m, err = d.message(id, fields)
	return id, m, err == nil, err
}

func (d *decoder) message(id string, fields []rueidis.RedisMessage) (pubsub.Message, error) {
	m := pubsub.Message{Topic: d.topic, Attempt: 1}
	stamp := ""
	for i := 0; i < len(fields); i += 2 {
		name, err := fields[i].ToString()
		if err != nil {
			return m, err
		}
		value, err := fields[i+1].ToString()
		if err != nil {
			return m, err
		}
		switch name {
		case fieldID:
			m.ID = value
		case fieldTime:
			stamp = value
		case fieldKey:
			m.Key = value
		case fieldData:
			if m.Payload, err = fields[i+1].AsBytes(); err != nil {
				return m, err
			}
		default:
			d.header(&m, name, value)
		}
	}
	if m.ID == "" {
		m.ID = id
	}
	m.Time = d.timeOf(stamp, id)
	return m, nil
}

func (d *decoder) header(m *pubsub.Message, name, value string) {
	if strings.HasPrefix(name, "ce-") { // an attribute that is not known here
		return
	}
	if m.Header == nil {
		m.Header = make(pubsub.Header)
	}
	if other, twice := m.Header[name]; twice {
		value = other + ", " + value
	}
	m.Header[name] = value
}

// timeOf reads the time, which many messages in a row have in common.
func (d *decoder) timeOf(stamp, id string) time.Time {
	if stamp != "" && stamp == d.stamp {
		return d.time
	}
	if t, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
		d.stamp, d.time = stamp, t
		return t
	}
	from, err := parseID(id)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(int64(from.ms))
}

// streams reads the answer of XREAD and XREADGROUP, which RESP3 gives as a map and RESP2 as a list, and calls each for
// the entries of every stream.
func streams(answer rueidis.RedisMessage, each func(key string, entries []rueidis.RedisMessage) error) error {
	if answer.IsMap() {
		all, err := answer.AsMap()
		if err != nil {
			return err
		}
		for key, list := range all {
			entries, err := list.ToArray()
			if err != nil {
				return err
			}
			if err := each(key, entries); err != nil {
				return err
			}
		}
		return nil
	}
	all, err := answer.ToArray()
	if err != nil {
		return err
	}
	for i := range all {
		pair, err := all[i].ToArray()
		if err != nil || len(pair) != 2 {
			return errors.Join(errEntry, err)
		}
		key, err := pair[0].ToString()
		if err != nil {
			return err
		}
		entries, err := pair[1].ToArray()
		if err != nil {
			return err
		}
		if err := each(key, entries); err != nil {
			return err
		}
	}
	return nil
}

// Package configdata gives every Config of the library one JSON form and one way to report faults. It is for those who write a
// driver, a store or a policy whose Config is to be like the others; a service needs none of it.
//
// The JSON form is an object in snake_case. A duration is a string such as "250ms"; a number or duration that is
// negative, which switches the field off, is written "off". Zero fields are left out, since zero means the
// documented default. An unknown field, a repeated document or trailing text is an error.
package configdata

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
)

// off is the JSON word for a negative number or duration.
const off = "off"

var durationType = reflect.TypeFor[time.Duration]()

// Marshal writes the struct cfg as JSON. Every field must carry a json tag with its name.
func Marshal(cfg any) ([]byte, error) {
	v := reflect.ValueOf(cfg)
	var buf bytes.Buffer
	buf.WriteByte('{')
	for i := range v.NumField() {
		f := v.Field(i)
		if f.IsZero() {
			continue
		}
		if buf.Len() > 1 {
			buf.WriteByte(',')
		}
		value, err := json.Marshal(encoded(f))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fieldName(v.Type().Field(i)), err)
		}
		fmt.Fprintf(&buf, "%q:%s", fieldName(v.Type().Field(i)), value)
	}
	buf.WriteByte('}')
	return buf.Bytes(), nil
}

// encoded is the JSON value of one field.
func encoded(f reflect.Value) any {
	switch {
	case f.CanInt() && f.Int() < 0, f.CanFloat() && f.Float() < 0:
		return off
	case f.Type() == durationType:
		return time.Duration(f.Int()).String()
	default:
		return f.Interface()
	}
}

// Unmarshal reads JSON into the struct that cfg points to, which is left unchanged on error. Fields that are not in
// the document become zero: a Config is replaced whole, never patched.
func Unmarshal(data []byte, cfg any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	var raw map[string]json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("text after the JSON object")
	}
	dst := reflect.ValueOf(cfg).Elem()
	read := reflect.New(dst.Type()).Elem()
	var faults []error
	for i := range read.NumField() {
		name := fieldName(read.Type().Field(i))
		value, ok := raw[name]
		if !ok {
			continue
		}
		delete(raw, name)
		if err := decode(value, read.Field(i)); err != nil {
			faults = append(faults, fmt.Errorf("field %q: %w", name, err))
		}
	}
	for name := range raw {
		faults = append(faults, fmt.Errorf("unknown field %q", name))
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	dst.Set(read)
	return nil
}

// decode reads one field.
func decode(value json.RawMessage, f reflect.Value) error {
	numeric := f.CanInt() || f.CanFloat()
	var text string
	isText := json.Unmarshal(value, &text) == nil && len(value) > 0 && value[0] == '"'
	switch {
	case numeric && isText && text == off && f.CanInt():
		f.SetInt(-1)
		return nil
	case numeric && isText && text == off:
		f.SetFloat(-1)
		return nil
	case f.Type() == durationType:
		if !isText {
			return fmt.Errorf(`%s is not a duration: write a string such as "250ms"`, value)
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf(`%q is not a duration: write a string such as "250ms" or %q`, text, off)
		}
		f.SetInt(int64(d))
		return nil
	default:
		if err := json.Unmarshal(value, f.Addr().Interface()); err != nil {
			return fmt.Errorf("%s is not a %s", value, f.Type())
		}
		return nil
	}
}

func fieldName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// Faults collects what is wrong with a Config, so that Validate reports everything at once.
type Faults struct {
	prefix string
	errs   []error
}

// Check starts a list of faults for the Config called name of the given package.
func Check(pkg, name string) *Faults {
	if name == "" || name == pkg {
		return &Faults{prefix: pkg}
	}
	return &Faults{prefix: fmt.Sprintf("%s %q", pkg, name)}
}

// Require records that field holds value but must be what want says, unless ok.
func (f *Faults) Require(ok bool, field string, value any, want string) {
	if !ok {
		f.errs = append(f.errs, fmt.Errorf("%s: Config.%s is %v: it must be %s", f.prefix, field, value, want))
	}
}

// Err is every recorded fault joined, or nil.
func (f *Faults) Err() error { return errors.Join(f.errs...) }

// Default is value, or def where value is zero, or -1 (off) where it is negative.
func Default[T ~int | ~int64 | ~float64](value, def T) T {
	switch {
	case value < 0:
		return -1
	case value == 0:
		return def
	default:
		return value
	}
}

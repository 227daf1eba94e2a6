package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
)

// Action is something that a person may do to an object from the page, after a question. Make it with On or OnInput and allow it by
// WithActions.
type Action struct {
	name, label, input string
	fits               func(Object) bool
	do                 func(ctx context.Context, o Object, input string) error
}

// Attempt is an action that somebody asks for.
type Attempt struct {
	// Action is the name given to On.
	Action string
	// Object is what it is to be done to, Kind and Name are what that is called.
	Object     Object
	Kind, Name string
	// Input is what the person has typed in, for actions that ask.
	Input string
}

var actionName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,49}$`)

// On makes an action for every object that is a T, such as *breaker.Breaker. The name is a word of lower-case letters, digits, "_" and "-";
// the label is what the button says. The context ends with the request. The error is shown to the person. On panics on a bad name,
// an empty label or a nil function.
func On[T any](name, label string, do func(ctx context.Context, target T) error) Action {
	if do == nil {
		panic("console: On: the function is nil")
	}
	return OnInput(name, label, "", func(ctx context.Context, target T, _ string) error { return do(ctx, target) })
}

// OnInput is On for an action that needs a word from the person, such as the ID of a saga; ask says of what. The input has at most
// 1000 bytes.
func OnInput[T any](name, label, ask string, do func(ctx context.Context, target T, input string) error) Action {
	if !actionName.MatchString(name) || label == "" || do == nil {
		panic(fmt.Sprintf("console: action %q: it needs a name in lower case, a label and a function", name))
	}
	return Action{
		name: name, label: label, input: ask,
		fits: func(o Object) bool { _, ok := o.(T); return ok },
		do: func(ctx context.Context, o Object, input string) error {
			target, ok := o.(T)
			if !ok {
				return fmt.Errorf("%T is not of the kind that this is for", o)
			}
			return do(ctx, target, input)
		},
	}
}

// WithActions allows the actions to those for whom authorize returns nil; its error is shown to the others. It is asked for each
// attempt, after the request has proved not to come from another site's page, and is where the service's own sign-in belongs: the
// console has none. Without this option the console is read-only. It panics on a nil function or a name given twice.
func WithActions(authorize func(r *http.Request, a Attempt) error, actions ...Action) Option {
	if authorize == nil {
		panic("console: WithActions: the function that authorises is nil")
	}
	return func(c *Console) {
		c.authorize = authorize
		for _, a := range actions {
			if a.do == nil {
				panic("console: WithActions: an action was not made by On or OnInput")
			}
			for _, other := range c.actions {
				if other.name == a.name {
					panic(fmt.Sprintf("console: WithActions: the action %q is there twice", a.name))
				}
			}
			c.actions = append(c.actions, a)
		}
	}
}

const (
	// actionHeader cannot be set by a form or an image of another site, and not by its script without being asked for.
	actionHeader = "X-Backstay-Action"
	maxBody      = 4 << 10
	maxInput     = 1000
)

// act carries out an action.
func (c *Console) act(w http.ResponseWriter, r *http.Request, id int, name string) {
	if c.authorize == nil {
		refuse(w, http.StatusForbidden, "the console is read-only")
		return
	}
	if r.Header.Get(actionHeader) != "1" || c.crossSite.Check(r) != nil {
		refuse(w, http.StatusForbidden, "actions are taken on the console's own page only")
		return
	}
	e := c.entry(id)
	a := c.actionOn(e, name)
	if e == nil || a == nil {
		refuse(w, http.StatusNotFound, "no such object, or no such action on it")
		return
	}
	var body struct {
		Input string `json:"input"`
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil || len(body.Input) > maxInput {
		refuse(w, http.StatusBadRequest, `the body must be a JSON object {"input": "…"} of at most 1000 bytes`)
		return
	}
	attempt := Attempt{Action: name, Object: e.object, Kind: e.kind, Name: e.name, Input: body.Input}
	if err := c.authorize(r, attempt); err != nil {
		refuse(w, http.StatusForbidden, clean(err.Error(), maxText))
		return
	}
	err := a.run(r.Context(), e.object, body.Input)
	done := Event{Level: Degraded, Kind: e.kind, Name: e.name, Text: "by hand: " + a.label}
	if body.Input != "" {
		done.Text += " (" + clean(body.Input, maxName) + ")"
	}
	if err != nil {
		done.Level, done.Text = Failed, done.Text+": "+err.Error()
	}
	c.Record(done)
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, clean(err.Error(), maxText))
		return
	}
	answer(w, r, []byte(`{"done":true}`))
}

// run turns a panic into an error: the person is to know.
func (a *Action) run(ctx context.Context, o Object, input string) (err error) {
	if fault := guarded(func() { err = a.do(ctx, o, input) }); fault != "" {
		err = fmt.Errorf("the action %s", fault)
	}
	return err
}

// actionOn is nil where the object has no such action.
func (c *Console) actionOn(e *entry, name string) *Action {
	for i := range c.actions {
		if a := &c.actions[i]; e != nil && a.name == name && a.fits(e.object) {
			return a
		}
	}
	return nil
}

// appendActions writes what may be done to the object, as JSON.
func (c *Console) appendActions(b []byte, e *entry) []byte {
	b = append(b, '[')
	some := false
	for _, a := range c.actions {
		if !a.fits(e.object) {
			continue
		}
		if some {
			b = append(b, ',')
		}
		some = true
		b = append(append(b, `{"name":`...), quoted(a.name)...)
		b = append(append(b, `,"label":`...), quoted(a.label)...)
		b = append(append(b, `,"input":`...), quoted(a.input)...)
		b = append(b, '}')
	}
	return append(b, ']')
}

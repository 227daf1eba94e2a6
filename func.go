package backstay

import "context"

// Func is the unit of composition. It is an alias: every function of this shape is a Func, and packages can take and return
// them without importing this one.
type Func[In, Out any] = func(ctx context.Context, in In) (Out, error)

// Check returns fn with a test of its values: where fn succeeds and check returns an error, that is the error, beside the
// value. So a bad value, such as a response with status 503, becomes a failure that policies see. It panics on nil.
func Check[In, Out any](fn Func[In, Out], check func(Out) error) Func[In, Out] {
	if fn == nil || check == nil {
		panic("backstay: Check: the function or the check is nil")
	}
	return func(ctx context.Context, in In) (Out, error) {
		out, err := fn(ctx, in)
		if err == nil {
			err = check(out)
		}
		return out, err
	}
}

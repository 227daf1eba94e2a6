//go:build !unix

package natsembed

// lock does nothing where flock does not exist: there the caller keeps two servers off one directory.
func lock(string) (unlock func() error, err error) { return func() error { return nil }, nil }

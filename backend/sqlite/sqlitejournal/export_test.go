package sqlitejournal

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Pragma returns a setting of the connection that commits.
func (j *Journal[K, V]) Pragma(t *testing.T, name string) (value any) {
	require.NoError(t, j.conn.QueryRowContext(t.Context(), "PRAGMA "+name).Scan(&value))
	return value
}

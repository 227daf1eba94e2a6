package pgsaga

import (
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// word and number are arguments of a statement, handed over by their address: a value in an interface would be an allocation each.
type (
	word   string
	number int64
)

// TextValue implements pgtype.TextValuer.
func (w *word) TextValue() (pgtype.Text, error) {
	return pgtype.Text{String: string(*w), Valid: true}, nil
}

// Int64Value implements pgtype.Int64Valuer.
func (n *number) Int64Value() (pgtype.Int8, error) {
	return pgtype.Int8{Int64: int64(*n), Valid: true}, nil
}

// row is one row of what a statement takes, as many of its fields as the source has columns.
type row struct {
	numbers [maxNumbers]number
	words   [maxWords]word
}

const (
	maxNumbers = 10
	maxWords   = 14
)

// source is the table "t" of rows that a statement reads from its arguments: columns of numbers, and then columns of words.
type source struct{ numbers, words []string }

// one is the source of a single row.
func (s source) one() string {
	var fields []string
	for i, name := range s.names() {
		fields = append(fields, "$"+strconv.Itoa(i+1)+"::"+s.kind(i)+" AS "+name)
	}
	return "(SELECT " + strings.Join(fields, ", ") + ") AS t"
}

// many is the source of any number of rows, in their order.
func (s source) many() string {
	var arrays []string
	for i := range s.names() {
		arrays = append(arrays, "$"+strconv.Itoa(i+1)+"::"+s.kind(i)+"[]")
	}
	return "unnest(" + strings.Join(arrays, ", ") + ") AS t (" + strings.Join(s.names(), ", ") + ")"
}

func (s source) names() []string { return append(append([]string{}, s.numbers...), s.words...) }

func (s source) kind(i int) string {
	if i < len(s.numbers) {
		return "bigint"
	}
	return "text"
}

// args are the arguments of a statement: those of one() for a single row, and else those of many().
func (s source) args(rows []row) []any {
	args := make([]any, 0, len(s.numbers)+len(s.words))
	if len(rows) == 1 {
		for i := range s.numbers {
			args = append(args, &rows[0].numbers[i])
		}
		for i := range s.words {
			args = append(args, &rows[0].words[i])
		}
		return args
	}
	for i := range s.numbers {
		args = append(args, numbers{column{rows, i}})
	}
	for i := range s.words {
		args = append(args, words{column{rows, i}})
	}
	return args
}

// column is one column of many rows: an array for the driver, which would take each element of a slice by value.
type column struct {
	rows []row
	i    int
}

// Dimensions implements pgtype.ArrayGetter.
func (c column) Dimensions() []pgtype.ArrayDimension {
	return []pgtype.ArrayDimension{{Length: int32(len(c.rows)), LowerBound: 1}}
}

type numbers struct{ column }

// Index implements pgtype.ArrayGetter.
func (c numbers) Index(i int) any { return &c.rows[i].numbers[c.i] }

// IndexType implements pgtype.ArrayGetter.
func (c numbers) IndexType() any { return new(number) }

type words struct{ column }

// Index implements pgtype.ArrayGetter.
func (c words) Index(i int) any { return &c.rows[i].words[c.i] }

// IndexType implements pgtype.ArrayGetter.
func (c words) IndexType() any { return new(word) }

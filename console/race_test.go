//go:build race

package console_test

const slowness = 20

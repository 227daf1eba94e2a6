// Package test holds what needs dependencies that the root module must not have: checks of the layout, faults on real servers,
// processes that are killed.
package test

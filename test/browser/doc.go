// Package browser looks at the console as people do: in a real browser.
package browser

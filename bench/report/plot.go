package main

import (
	"fmt"
	"html"
	"math"
	"strings"

	"github.com/backstay-go/backstay/bench"
)

// The plot's measures, in pixels.
const (
	plotWidth  = 960
	labelWidth = 380 // of the subjects' names
	valueWidth = 80  // right of the longest line
	lineHeight = 18
	gap        = 12 // between pieces of work
	topMargin  = 82
)

const plotStyle = `
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 } .work { font-weight: 600 } .quiet { fill: #59636e }
.grid { stroke: #d1d9e0 } .floor { stroke: #59636e; stroke-width: 1.5 }
.peer { stroke: #818b98; fill: #818b98 } .ours { stroke: #0969da; fill: #0969da } text.ours { stroke: none; font-weight: 600 }
.back { fill: #ffffff }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .quiet { fill: #9198a1 } .grid { stroke: #3d444d } .floor { stroke: #9198a1 }
.peer { stroke: #7d8590; fill: #7d8590 } .ours { stroke: #4493f8; fill: #4493f8 } .back { fill: #0d1117 }
}`

// plot draws how many times the floor each subject of each piece of work takes, as a picture in SVG. The scale is logarithmic, as
// subjects lie orders of magnitude apart; a line starts at the floor, so that its length is what the subject adds.
func (a *area) plot(head string) string {
	low, high := a.decades()
	x := func(ratio float64) float64 {
		return labelWidth + (math.Log10(ratio)-low)/(high-low)*(plotWidth-labelWidth-valueWidth)
	}
	var lines strings.Builder
	y := topMargin
	for i, r := range a.Rows {
		if r.Subject == bench.Floor {
			if i > 0 {
				y += gap
			}
			text(&lines, 16, y, "work", fmt.Sprintf("%s – floor %s", r.Case, duration(r.NsOp)))
		} else {
			lollipop(&lines, x, y, r)
		}
		y += lineHeight
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" aria-label="%s">`,
		plotWidth, y+gap, html.EscapeString(a.title+": times the floor"))
	fmt.Fprintf(&b, "\n<style>%s\n</style>\n<rect class=\"back\" width=\"100%%\" height=\"100%%\"/>\n", plotStyle)
	text(&b, 16, 22, "title", a.title+": how many times the floor")
	text(&b, 16, 40, "quiet", head+"; logarithmic, further left is faster")
	for d := low; d <= high; d++ {
		vertical(&b, "grid", x(math.Pow(10, d)), y)
		text(&b, int(x(math.Pow(10, d)))-8, 60, "quiet", times(math.Pow(10, d)))
	}
	vertical(&b, "floor", x(1), y)
	return b.String() + lines.String() + "</svg>\n"
}

// decades are the powers of ten between which all ratios lie, and the floor.
func (a *area) decades() (low, high float64) {
	high = 1
	for _, r := range a.Rows {
		low, high = min(low, math.Floor(math.Log10(r.RatioToFloor))), max(high, math.Ceil(math.Log10(r.RatioToFloor)))
	}
	return low, high
}

func lollipop(b *strings.Builder, x func(float64) float64, y int, r row) {
	class := "peer"
	if strings.HasPrefix(r.Subject, bench.Ours) {
		class = "ours"
	}
	end, middle := x(r.RatioToFloor), y-4
	text(b, 32, y, class, r.Subject)
	fmt.Fprintf(b, `<line class="%s" x1="%.1f" y1="%d" x2="%.1f" y2="%[3]d" stroke-width="2"/><circle class="%[1]s" cx="%.1[4]f" cy="%[3]d" r="4"/>`+"\n", class, x(1), middle, end)
	text(b, int(max(end, x(1)))+8, y, "quiet", times(r.RatioToFloor))
}

func vertical(b *strings.Builder, class string, x float64, bottom int) {
	fmt.Fprintf(b, `<line class="%s" x1="%.1f" y1="64" x2="%.1[2]f" y2="%d"/>`+"\n", class, x, bottom)
}

func text(b *strings.Builder, x, y int, class, what string) {
	if class == "peer" {
		class = "quiet"
	}
	fmt.Fprintf(b, `<text class="%s" x="%d" y="%d">%s</text>`+"\n", class, x, y, html.EscapeString(what))
}

// times is a multiple with three digits, or without decimals.
func times(ratio float64) string {
	if ratio < 1000 {
		return fmt.Sprintf("%.3g ×", ratio)
	}
	return fmt.Sprintf("%.0f ×", ratio)
}

// duration is a time that a person reads: three digits and a unit.
func duration(ns float64) string {
	switch {
	case ns < 1e3:
		return fmt.Sprintf("%.3g ns", ns)
	case ns < 1e6:
		return fmt.Sprintf("%.3g µs", ns/1e3)
	default:
		return fmt.Sprintf("%.3g ms", ns/1e6)
	}
}

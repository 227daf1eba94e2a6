package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	linkPattern = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	codeSpan    = regexp.MustCompile("`[^`]*`")
	notInAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// TestLinksLeadSomewhere follows every relative link and every anchor in the pages of the repository. It fetches nothing.
func TestLinksLeadSomewhere(t *testing.T) {
	links := 0
	for _, page := range markdown(t) {
		for _, link := range linksIn(prose(t, page)) {
			links++
			require.NoError(t, follow(t, page, link), "%s links to %s", page, link)
		}
	}
	require.NotZero(t, links)
}

// markdown are the pages of the repository.
func markdown(t *testing.T) (pages []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir("..", func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() && entry.Name() == ".git" {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".md") {
			pages = append(pages, path)
		}
		return err
	}))
	return pages
}

// prose is a page without its blocks of code.
func prose(t *testing.T, page string) string {
	t.Helper()
	data, err := os.ReadFile(page)
	require.NoError(t, err)
	var text strings.Builder
	fenced := false
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
		} else if !fenced {
			text.WriteString(line)
		}
	}
	return text.String()
}

// linksIn are the targets of the links and pictures in a text, those to other hosts left out.
func linksIn(text string) (links []string) {
	for _, found := range linkPattern.FindAllStringSubmatch(codeSpan.ReplaceAllString(text, "code"), -1) {
		if !strings.Contains(found[1], "://") && !strings.HasPrefix(found[1], "mailto:") {
			links = append(links, found[1])
		}
	}
	return links
}

func follow(t *testing.T, page, link string) error {
	t.Helper()
	path, anchor, anchored := strings.Cut(link, "#")
	target := page
	if path != "" {
		target = filepath.Join(filepath.Dir(page), path)
	}
	if _, err := os.Stat(target); err != nil || !anchored {
		return err
	}
	if !anchors(prose(t, target))[anchor] {
		return &os.PathError{Op: "find the heading", Path: link, Err: os.ErrNotExist}
	}
	return nil
}

// anchors are what the headings of a page can be linked by: in lower case, without punctuation, blanks as hyphens, and a number where one
// comes again.
func anchors(text string) map[string]bool {
	known := map[string]bool{}
	for line := range strings.Lines(text) {
		hashes, title, found := strings.Cut(strings.TrimSpace(line), " ")
		if !found || hashes == "" || strings.Trim(hashes, "#") != "" {
			continue
		}
		name := strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(title), ""), " ", "-")
		unique := name
		for n := 1; known[unique]; n++ {
			unique = name + "-" + strconv.Itoa(n)
		}
		known[unique] = true
	}
	return known
}

func TestALinkThatLeadsNowhereIsFound(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	require.NoError(t, os.WriteFile(page, []byte("# What's new?\n## Order\n## Order\n```\n[no](link.md)\n```\n`[no](link.md)` [a](#whats-new) [b](https://example.org)"), 0o600))
	require.Equal(t, []string{"#whats-new"}, linksIn(prose(t, page)))
	for _, good := range []string{"#whats-new", "#order", "#order-1", "page.md", "page.md#order"} {
		require.NoError(t, follow(t, page, good), good)
	}
	for _, bad := range []string{"#orders", "#order-2", "other.md", "page.md#new"} {
		require.ErrorIs(t, follow(t, page, bad), os.ErrNotExist, bad)
	}
}

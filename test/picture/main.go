// Command picture makes an SVG picture of the top of a report: the page itself in a frame, as text.
package main

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/net/html"
)

const width, height = 960, 1080

func main() {
	if err := draw(); err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

func draw() error {
	page, err := html.Parse(os.Stdin)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(os.Stdout)
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d">`+"\n<foreignObject width=\"%[1]d\" height=\"%[2]d\">\n", width, height)
	for n := range page.Descendants() {
		if n.Type == html.ElementNode && n.Data == "style" {
			fmt.Fprintf(w, "<style xmlns=\"http://www.w3.org/1999/xhtml\"><![CDATA[%s]]></style>\n", n.FirstChild.Data)
		}
	}
	for n := range page.Descendants() {
		if n.Type == html.ElementNode && n.Data == "body" {
			write(w, n, "")
		}
	}
	fmt.Fprintln(w, "</foreignObject>\n</svg>")
	return w.Flush()
}

var namespaces = map[string]string{"": "http://www.w3.org/1999/xhtml", "svg": "http://www.w3.org/2000/svg"}

// write writes a node as XML.
func write(w *bufio.Writer, n *html.Node, parent string) {
	switch n.Type {
	case html.TextNode:
		w.WriteString(html.EscapeString(n.Data))
	case html.ElementNode:
		if n.Data == "details" && !slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == "open" }) {
			return // it would be closed
		}
		fmt.Fprintf(w, "<%s", n.Data)
		if n.Data == "body" || n.Namespace != parent {
			fmt.Fprintf(w, " xmlns=%q", namespaces[n.Namespace])
		}
		for _, a := range n.Attr {
			if !strings.HasPrefix(a.Key, "xmlns") {
				fmt.Fprintf(w, ` %s="%s"`, a.Key, html.EscapeString(a.Val))
			}
		}
		w.WriteString(">")
		for c := range n.ChildNodes() {
			write(w, c, n.Namespace)
		}
		fmt.Fprintf(w, "</%s>", n.Data)
	}
}

package report

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/seccompgen/seccompgen/profile"
)

// browser starts a headless Chromium without a network, and collects what the pages say or ask for.
func browser(t *testing.T) (context.Context, func() []string) {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil && path == "" {
			path = found
		}
	}
	if path == "" {
		t.Skip("SKIPPED: needs chromium: scripts/setup test installs it")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute) // t.Context() would end before the browser is closed
	t.Cleanup(cancel)
	// Chromium's own sandbox refuses root; the pages are ours. No name resolves.
	ctx, stop := chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()), chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND"))...)
	t.Cleanup(stop)
	ctx, end := chromedp.NewContext(ctx)
	t.Cleanup(end)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("close the browser: %v", err)
		}
	})
	var mu sync.Mutex
	var said []string
	err := chromedp.Listen(ctx, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventConsoleAPICalled:
			said = append(said, fmt.Sprintf("console.%s", e.Type))
		case *runtime.EventExceptionThrown:
			said = append(said, e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			said = append(said, e.Entry.Text)
		case *network.EventRequestWillBeSent:
			if !strings.HasPrefix(e.Request.URL, "file:///") && !strings.HasPrefix(e.Request.URL, "data:") {
				said = append(said, "request of "+e.Request.URL)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	return ctx, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return said
	}
}

// look is a way to look at a page.
type look struct {
	name, media, scheme string
	width               int64
}

var looks = []look{
	{"wide light", "screen", "light", 1280},
	{"wide dark", "screen", "dark", 1280},
	{"narrow light", "screen", "light", 400},
	{"narrow dark", "screen", "dark", 400},
	{"print", "print", "light", 718}, // A4 without margins
	{"print from a dark desktop", "print", "dark", 718},
}

// measure returns what is wrong with the page as it is shown now.
const measure = `(() => {
	const wrong = [];
	const root = document.documentElement;
	if (root.scrollWidth > root.clientWidth) wrong.push("wider than its window: " + root.scrollWidth + " > " + root.clientWidth);
	if (window.pwned) wrong.push("a name ran as a script");
	for (const id of ["verdict", "denials", "runs", "docker", "tests", "saturation", "untested"]) {
		const box = document.getElementById(id)?.getBoundingClientRect();
		if (!box || box.height < 20) wrong.push("no section " + id);
	}
	for (const table of document.querySelectorAll("table")) {
		if (!table.querySelector("thead th[scope=col]")) wrong.push("a table without headers");
		for (const row of table.querySelectorAll("tbody tr")) if (!row.querySelector("th[scope=row]") && !row.querySelector("td.i")) wrong.push("a row without header: " + row.textContent);
	}
	for (const svg of document.querySelectorAll("svg")) {
		if (svg.getAttribute("role") !== "img" || !svg.getAttribute("aria-label") && !svg.querySelector("title")) wrong.push("a drawing without a name");
	}
	const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
	const rgb = color => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
	const light = ([r, g, b]) => [r, g, b].map(c => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; }).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
	const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255, 255]; };
	const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	let least = 21, seen = 0;
	while (texts.nextNode()) {
		const text = texts.currentNode.data.trim(), e = texts.currentNode.parentElement;
		if (!text || !e.getClientRects().length || e.closest("title, desc")) continue;
		const style = getComputedStyle(e);
		const [a, b] = [light(rgb(e instanceof SVGElement ? style.fill : style.color)), light(behind(e))].sort((x, y) => y - x);
		const ratio = (a + 0.05) / (b + 0.05);
		least = Math.min(least, ratio); seen++;
		if (ratio < 4.5) wrong.push("contrast " + ratio.toFixed(2) + " of " + JSON.stringify(text.slice(0, 40)));
	}
	if (seen < 30) wrong.push("only " + seen + " texts");
	return {wrong, least, background: rgb(getComputedStyle(document.body).backgroundColor).slice(0, 3)};
})()`

type measured struct {
	Wrong      []string  `json:"wrong"`
	Least      float64   `json:"least"`
	Background []float64 `json:"background"`
}

func (l look) measure(t *testing.T, ctx context.Context) measured {
	t.Helper()
	if _, err := chromedp.Call(ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: l.width, Height: 900, DeviceScaleFactor: 1}); err != nil {
		t.Fatal(err)
	}
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: l.scheme}}
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: l.media, Features: features}); err != nil {
		t.Fatal(err)
	}
	m, err := chromedp.Run(ctx, chromedp.Evaluate[measured](measure))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestBrowser looks at the pages in a real browser: on wide and narrow screens, light and dark, and printed.
func TestBrowser(t *testing.T) {
	ctx, said := browser(t)
	dir := t.TempDir()
	for name, in := range map[string]Input{"failed": failed(t), "passed": passed(t), "many calls": many(t)} {
		path := filepath.Join(dir, name+".html")
		if err := os.WriteFile(path, encode(t, in, path), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := chromedp.Do(ctx, chromedp.Navigate("file://"+path)); err != nil {
			t.Fatal(err)
		}
		for _, l := range looks {
			m := l.measure(t, ctx)
			for _, wrong := range m.Wrong {
				t.Errorf("%s, %s: %s", name, l.name, wrong)
			}
			if dark := m.Background[0] < 128; dark != (l.media == "screen" && l.scheme == "dark") {
				t.Errorf("%s, %s: the background is %v", name, l.name, m.Background)
			}
			t.Logf("%s, %s: least contrast %.1f", name, l.name, m.Least)
			if out := os.Getenv("SCREENSHOTS"); out != "" { // for eyes
				png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(out, name+" "+l.name+".png"), png, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		if pdf, err := chromedp.Run(ctx, chromedp.PrintToPDF(chromedp.PDFPaper(chromedp.PaperA4))); err != nil || !bytes.HasPrefix(pdf, []byte("%PDF-")) {
			t.Errorf("%s: print: %v", name, err)
		}
	}
	if said := said(); len(said) > 0 {
		t.Errorf("the pages said %q", said)
	}
}

// TestBrowserNotices: the test above can fail.
func TestBrowserNotices(t *testing.T) {
	ctx, said := browser(t)
	path := filepath.Join(t.TempDir(), "page.html")
	text := string(encode(t, failed(t), path))
	for old, damage := range map[string]string{
		"--soft: #515b66":      "--soft: #a0a8b0",
		"</main>":              `<div style="width: 2000px">wide</div><table><tr><td>x</td></tr></table><svg></svg></main>`,
		`<section id="docker"`: `<section id="dockers"`,
		`<meta http-equiv="Content-Security-Policy"`: `<script>console.error("x"); window.pwned = 1</script><script src="https://example.com/x.js"></script><meta name="none"`,
	} {
		damaged := strings.ReplaceAll(text, old, damage)
		if damaged == text {
			t.Fatalf("the page has no %q", old)
		}
		text = damaged
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx, chromedp.Navigate("file://"+path)); err != nil {
		t.Fatal(err)
	}
	m := looks[0].measure(t, ctx)
	found, err := json.Marshal(append(m.Wrong, said()...))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"wider than its window", "a name ran as a script", "no section docker", "a table without headers", "a row without header", "a drawing without a name", "contrast 2.", "console.error", "request of https://example.com/x.js"} {
		if !bytes.Contains(found, []byte(want)) {
			t.Errorf("%q was not noticed: %s", want, found)
		}
	}
}

// many is a report of a program whose tests make more calls than a screen is wide.
func many(t *testing.T) Input {
	in := failed(t)
	seen := len(in.Recording.Syscalls)
	for i, name := range strings.Fields("accept4 bind chdir chmod chown connect dup epoll_create1 eventfd2 fchdir fchmod fchown fcntl fsync ftruncate getcwd getdents64 getegid geteuid getgid getpeername getpid getsockname getsockopt gettid getuid kill listen lseek madvise mmap munmap nanosleep openat pipe2 pread64 prlimit64 pwrite64 readlinkat recvfrom recvmsg renameat sendfile sendmsg sendto setsockopt shutdown socket splice symlinkat uname unlinkat utimensat wait4 waitid write") {
		s := in.Recording.Syscalls[seen-1]
		s.Nr, s.Callers = number(t, name), []profile.Caller{{Comm: "pkg.test", Test: fmt.Sprintf("TestOfSomethingWithALongName%d", i%7)}}
		in.Recording.Syscalls = append(in.Recording.Syscalls, s)
	}
	return in
}

package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const profileJSON = `{"defaultAction":"SCMP_ACT_ERRNO"}` + "\n"

func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestWrite(t *testing.T) {
	one, two := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	d, err := Write(t.Context(), one, []byte(profileJSON), Options{Title: "p.json"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Write(t.Context(), two, []byte(`{"defaultAction":"SCMP_ACT_LOG"}`), Options{}); err != nil {
		t.Fatal(err)
	}
	again, err := Write(t.Context(), two+"/", []byte(profileJSON), Options{Title: "p.json"}) // in place of the other
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(files(t, one), files(t, two)); diff != "" || d != again {
		t.Errorf("two artifacts of the same profile differ:\n%s", diff)
	}
	all := files(t, one)
	var m v1.Manifest
	if err := json.Unmarshal([]byte(all["/blobs/sha256/"+d.Encoded()]), &m); err != nil {
		t.Fatal(err)
	}
	if m.ArtifactType != MediaType || m.Config.MediaType != MediaType || len(m.Layers) != 1 || m.Annotations != nil {
		t.Errorf("got %+v", m)
	}
	if got := all["/blobs/sha256/"+m.Layers[0].Digest.Encoded()]; got != profileJSON {
		t.Errorf("the layer is %q", got)
	}
	var index v1.Index
	if err := json.Unmarshal([]byte(all["/index.json"]), &index); err != nil || len(index.Manifests) != 1 || index.Manifests[0].Digest != d {
		t.Errorf("the index is %s, %v", all["/index.json"], err)
	}
	later, err := Write(t.Context(), two, []byte(profileJSON), Options{Title: "p.json", Created: time.Unix(1, 0)})
	if err != nil || later == d || !strings.Contains(files(t, two)["/blobs/sha256/"+later.Encoded()], `"1970-01-01T00:00:01Z"`) {
		t.Errorf("with a time: %s, %v", later, err)
	}
	if _, err := os.Stat(filepath.Dir(two)); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(two), ".artifact-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestWriteRefusesOtherDirectories(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(t.Context(), dir, []byte("{}"), Options{}); err == nil || !strings.Contains(err.Error(), "holds precious") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "precious")); err != nil {
		t.Error(err)
	}
}

func TestPush(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	reg := &fakeRegistry{stored: map[string]string{}}
	server := httptest.NewServer(reg)
	defer server.Close()
	dir := filepath.Join(t.TempDir(), "a")
	d, err := Write(t.Context(), dir, []byte(profileJSON), Options{})
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(server.URL, "http://")
	for _, ref := range []string{"/team/p:v1", "/team/p", "/team/p@" + d.String(), "/team/p:v1"} {
		if err := Push(t.Context(), dir, d, host+ref); err != nil {
			t.Fatalf("%s: %v", ref, err)
		}
	}
	layer := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(profileJSON)))
	if reg.stored["/v2/team/p/blobs/"+layer] != profileJSON {
		t.Errorf("the layer is not there: %v", reg.stored)
	}
	if m := reg.stored["/v2/team/p/manifests/v1"]; m == "" || m != reg.stored["/v2/team/p/manifests/"+d.String()] {
		t.Errorf("the tag names %q", m)
	}
	if got, want := ByDigest(host+"/team/p:v1", d), host+"/team/p@"+d.String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	other := strings.Repeat("0", 64)
	if err := Push(t.Context(), dir, d, host+"/team/p@sha256:"+other); err == nil || !strings.Contains(err.Error(), "has the digest") {
		t.Errorf("another digest: %v", err)
	}
	server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := Push(ctx, dir, d, host+"/team/p:v2"); err == nil {
		t.Error("pushed to a registry that is gone")
	}
}

// fakeRegistry does of the distribution specification what a push needs.
type fakeRegistry struct {
	sync.Mutex
	stored map[string]string
}

func (r *fakeRegistry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.Lock()
	defer r.Unlock()
	body, _ := io.ReadAll(q.Body)
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256(body))
	switch {
	case q.Method == http.MethodPost && strings.HasSuffix(q.URL.Path, "/blobs/uploads/"):
		w.Header().Set("Location", q.URL.Path+"1")
		w.WriteHeader(http.StatusAccepted)
	case q.Method == http.MethodPut && strings.HasSuffix(q.URL.Path, "/blobs/uploads/1"):
		if sum != q.URL.Query().Get("digest") {
			http.Error(w, "digest", http.StatusBadRequest)
			return
		}
		r.stored[strings.TrimSuffix(q.URL.Path, "uploads/1")+sum] = string(body)
		w.WriteHeader(http.StatusCreated)
	case q.Method == http.MethodPut && strings.Contains(q.URL.Path, "/manifests/"):
		r.stored[q.URL.Path] = string(body)
		r.stored[q.URL.Path[:strings.LastIndex(q.URL.Path, "/")+1]+sum] = string(body)
		w.Header().Set("Docker-Content-Digest", sum)
		w.WriteHeader(http.StatusCreated)
	case q.Method == http.MethodGet || q.Method == http.MethodHead:
		data, ok := r.stored[q.URL.Path]
		if !ok {
			http.NotFound(w, q)
			return
		}
		w.Header().Set("Content-Type", v1.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(data))))
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = io.WriteString(w, data)
	default:
		http.Error(w, q.Method+" "+q.URL.Path, http.StatusMethodNotAllowed)
	}
}

// Package artifact writes a seccomp profile as an OCI artifact, as KEP-6061 wants it: a manifest whose config media type
// and artifact type say that it is a profile, and exactly one layer, the raw runtime-spec JSON.
//
// What surprises: nothing in it depends on when and where it is written, so that the same profile has the same digest
// everywhere. That is why there is no org.opencontainers.image.created unless a time is given, and why the library's own
// packer, which always writes one, is not used.
package artifact

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	imagespecs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/retry"
)

// MediaType is the config media type and the artifact type of a seccomp profile.
const MediaType = "application/vnd.cncf.seccomp-profile.config.v1+json"

// layerType is the media type of the layer. KEP-6061 lets runtimes look at no particular one; this is what the Security
// Profiles Operator writes.
const layerType = "application/json"

// Options are the parts of an artifact that a profile does not give.
type Options struct {
	Title   string    // file name of the layer, for tools that unpack it
	Created time.Time // left out if zero
}

// Write writes the artifact of a profile as an OCI image layout in dir, in place of one that is there, and returns the
// digest of the manifest. It refuses a directory that holds anything else.
func Write(ctx context.Context, dir string, profile []byte, o Options) (_ digest.Digest, err error) {
	if err := replaceable(dir); err != nil {
		return "", err
	}
	dir = filepath.Clean(dir)
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".artifact-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	store, err := oci.NewWithContext(ctx, tmp)
	if err != nil {
		return "", fmt.Errorf("make an image layout: %w", err)
	}
	push := func(mediaType string, data []byte) (v1.Descriptor, error) {
		d := content.NewDescriptorFromBytes(mediaType, data)
		if err := store.Push(ctx, d, bytes.NewReader(data)); err != nil {
			return d, fmt.Errorf("store %s: %w", mediaType, err)
		}
		return d, nil
	}
	config, err := push(MediaType, []byte("{}"))
	if err != nil {
		return "", err
	}
	layer, err := push(layerType, profile)
	if err != nil {
		return "", err
	}
	if o.Title != "" {
		layer.Annotations = map[string]string{v1.AnnotationTitle: o.Title}
	}
	manifest := v1.Manifest{
		Versioned: imagespecs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, ArtifactType: MediaType, Config: config, Layers: []v1.Descriptor{layer},
	}
	if !o.Created.IsZero() {
		manifest.Annotations = map[string]string{v1.AnnotationCreated: o.Created.UTC().Format(time.RFC3339)}
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		return "", fmt.Errorf("encode the manifest: %w", err)
	}
	d, err := push(v1.MediaTypeImageManifest, data)
	if err != nil {
		return "", err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	if err := os.RemoveAll(dir); err != nil { // replaceable: an image layout, or nothing
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", err
	}
	return d.Digest, nil
}

// replaceable reports whether dir is missing, empty or an image layout.
func replaceable(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case v1.ImageLayoutFile, v1.ImageIndexFile, v1.ImageBlobsDir, "ingest":
		default:
			return fmt.Errorf("directory %s holds %s, which is not part of an image layout: give an empty one", dir, e.Name())
		}
	}
	return nil
}

// Push copies an artifact from its image layout to REGISTRY/REPOSITORY[:TAG], in plain HTTP if the registry is on this host.
// Credentials are those that docker login keeps.
func Push(ctx context.Context, dir string, manifest digest.Digest, ref string) error {
	store, err := oci.NewWithContext(ctx, dir)
	if err != nil {
		return fmt.Errorf("open the image layout %s: %w", dir, err)
	}
	repo, err := remote.NewRepository(ref)
	if err != nil {
		return err
	}
	tag := repo.Reference.Reference
	if d, err := digest.Parse(tag); err == nil && d != manifest {
		return fmt.Errorf("the artifact has the digest %s", manifest)
	} else if err == nil {
		tag = ""
	}
	repo.PlainHTTP = local(repo.Reference)
	logins, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return fmt.Errorf("read Docker's configuration: %w", err)
	}
	repo.Client = &auth.Client{Client: retry.DefaultClient, Cache: auth.NewCache(), Credential: credentials.Credential(logins)}
	root, err := store.Resolve(ctx, manifest.String())
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", manifest, dir, err)
	}
	if err := oras.CopyGraph(ctx, store, repo, root, oras.DefaultCopyGraphOptions); err != nil {
		return err
	}
	if tag == "" {
		return nil
	}
	if err := repo.Tag(ctx, root, tag); err != nil {
		return fmt.Errorf("tag it %s: %w", tag, err)
	}
	return nil
}

// local reports whether a registry is on this host.
func local(ref registry.Reference) bool {
	host, _, err := net.SplitHostPort(ref.Host())
	if err != nil {
		host = ref.Host()
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// ByDigest returns the reference of an artifact by its digest, which is the only one that KEP-6061 takes.
func ByDigest(ref string, manifest digest.Digest) string {
	parsed, err := registry.ParseReference(ref)
	if err != nil {
		return ref
	}
	return fmt.Sprintf("%s/%s@%s", parsed.Registry, parsed.Repository, manifest)
}

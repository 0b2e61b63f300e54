// image writes an OCI image layout with an image for each architecture: one layer, and nothing that depends on when and
// where it is written.
//
//	image DIR VERSION DATE ARCH=LAYER.tar...
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	_ "crypto/sha256" // of digests
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"
)

func main() {
	if len(os.Args) < 5 {
		fmt.Fprintln(os.Stderr, "usage: image DIR VERSION DATE ARCH=LAYER.tar...")
		os.Exit(1)
	}
	if err := write(context.Background(), os.Args[1], os.Args[2], os.Args[3], os.Args[4:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func write(ctx context.Context, dir, version, date string, layers []string) error {
	created, err := time.Parse(time.RFC3339, date)
	if err != nil {
		return err
	}
	store, err := oci.NewStorage(dir)
	if err != nil {
		return err
	}
	push := func(mediaType string, data []byte) (v1.Descriptor, error) {
		d := content.NewDescriptorFromBytes(mediaType, data)
		return d, store.Push(ctx, d, bytes.NewReader(data))
	}
	pushJSON := func(mediaType string, v any) (v1.Descriptor, error) {
		data, err := json.Marshal(v)
		if err != nil {
			return v1.Descriptor{}, err
		}
		return push(mediaType, data)
	}
	about := map[string]string{
		v1.AnnotationTitle: "seccompgen", v1.AnnotationVersion: version, v1.AnnotationCreated: date, v1.AnnotationLicenses: "Apache-2.0",
		v1.AnnotationSource: "https://github.com/seccompgen/seccompgen",
	}
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Annotations: about}
	for _, l := range layers {
		arch, file, _ := strings.Cut(l, "=")
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		if _, err := z.Write(data); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		layer, err := push(v1.MediaTypeImageLayerGzip, packed.Bytes())
		if err != nil {
			return err
		}
		platform := v1.Platform{OS: "linux", Architecture: arch}
		config, err := pushJSON(v1.MediaTypeImageConfig, v1.Image{
			Created: &created, Platform: platform, Config: v1.ImageConfig{Entrypoint: []string{"/usr/bin/seccompgen"}},
			RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(data)}},
		})
		if err != nil {
			return err
		}
		manifest, err := pushJSON(v1.MediaTypeImageManifest, v1.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: config, Layers: []v1.Descriptor{layer}, Annotations: about,
		})
		if err != nil {
			return err
		}
		manifest.Platform = &platform
		index.Manifests = append(index.Manifests, manifest)
	}
	all, err := pushJSON(v1.MediaTypeImageIndex, index)
	if err != nil {
		return err
	}
	all.Annotations = map[string]string{v1.AnnotationRefName: "seccompgen:" + version} // what podman pull names it
	for name, v := range map[string]any{
		v1.ImageIndexFile:  v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{all}},
		v1.ImageLayoutFile: v1.ImageLayout{Version: v1.ImageLayoutVersion},
	} {
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if err := renameio.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Package nri is the plugin for containerd's Node Resource Interface: it gives containers that ask for a recording the
// hook, and on request a filter.
//
// What surprises: who may create a pod may annotate it, and a filter that allows everything removes a protection. So
// filters are for hosts whose configuration of the plugin says so.
package nri

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/nri/pkg/api"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seccompgen/seccompgen/internal/annotation"
	"github.com/seccompgen/seccompgen/internal/journal"
	"github.com/seccompgen/seccompgen/internal/recordings"
	"github.com/seccompgen/seccompgen/profile"
)

// FilterAnnotation asks for a filter: "all" for one that allows everything, under which the boundary of a recording is
// exact, or "profile:NAME" for NAME.json of the host's directory of profiles, to verify it. It has a form for one
// container as annotation.Record has.
const FilterAnnotation = "dev.seccompgen.filter"

// Config is what containerd hands to the plugin, from 10-seccompgen.conf in its directory of plugins' configurations.
type Config struct {
	Filters  bool     `json:"filters"`  // honour FilterAnnotation
	Profiles string   `json:"profiles"` // directory of the profiles that it may name
	HookArgs []string `json:"hookArgs"` // more arguments for the hook
}

// DefaultProfiles is the directory of profiles that the configuration does not name.
const DefaultProfiles = "/var/lib/seccompgen/profiles"

// Plugin answers containerd.
type Plugin struct {
	Hook   string // path of oci-hook
	config Config
}

// Configure takes the configuration.
func (p *Plugin) Configure(_ context.Context, config, _, _ string) (api.EventMask, error) {
	c := Config{Profiles: DefaultProfiles}
	if strings.TrimSpace(config) != "" {
		d := json.NewDecoder(bytes.NewReader([]byte(config)))
		d.DisallowUnknownFields()
		if err := d.Decode(&c); err != nil {
			return 0, fmt.Errorf("decode the plugin's configuration: %w", err)
		}
	}
	p.config = c
	return api.MustParseEventMask("CreateContainer"), nil
}

// CreateContainer gives a container that asks for it the hook and a filter.
func (p *Plugin) CreateContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	annotations := map[string]string{}
	maps.Copy(annotations, pod.GetAnnotations())
	maps.Copy(annotations, c.GetAnnotations())
	a, err := p.adjust(annotations, c.GetId(), c.GetName())
	if err != nil {
		return nil, nil, fmt.Errorf("seccompgen: container %s of pod %s: %w", c.GetName(), pod.GetName(), err)
	}
	return a, nil, nil
}

func (p *Plugin) adjust(annotations map[string]string, id, name string) (*api.ContainerAdjustment, error) {
	all := annotation.InPod(annotations, name)
	r, err := annotation.Asked(all)
	if err != nil {
		return nil, err
	}
	a := &api.ContainerAdjustment{}
	if r == nil {
		journal.Unmatched(id, annotation.ContainerName(all), annotation.Unmatched(all))
	} else {
		h := &api.Hook{Path: p.Hook, Args: append([]string{"oci-hook"}, p.config.HookArgs...), Timeout: api.Int(60)}
		a.AddAnnotation(r.Key, r.Value)
		a.AddHooks(&api.Hooks{CreateRuntime: []*api.Hook{h}, Poststop: []*api.Hook{h}})
	}
	filter, ok := annotations[FilterAnnotation+"/"+name]
	if !ok {
		filter, ok = annotations[FilterAnnotation]
	}
	if !ok {
		return a, nil
	}
	seccomp, err := p.filter(filter)
	if err != nil {
		return nil, fmt.Errorf("annotation %s=%.80q: %w", FilterAnnotation, filter, err)
	}
	a.SetLinuxSeccompPolicy(api.FromOCILinuxSeccomp(seccomp))
	return a, nil
}

func (p *Plugin) filter(value string) (*specs.LinuxSeccomp, error) {
	if !p.config.Filters {
		return nil, errors.New(`filters are not allowed on this host: its administrator can set {"filters": true} in 10-seccompgen.conf`)
	}
	if value == "all" {
		return profile.AllowAll(), nil
	}
	name, ok := strings.CutPrefix(value, "profile:")
	if !ok {
		return nil, errors.New(`give "all" or "profile:NAME"`)
	}
	seccomp, err := recordings.ReadProfile(p.config.Profiles, name)
	if err != nil {
		return nil, err
	}
	if seccomp.DefaultErrnoRet != nil {
		// containerd 2.4.2 sets none, and calls would fail with EPERM.
		return nil, errors.New("the profile has a defaultErrnoRet, which is lost on the way: use it as a localhost/ profile")
	}
	return seccomp, nil
}

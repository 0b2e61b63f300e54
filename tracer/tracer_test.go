package tracer

import (
	"testing"
	"time"
)

func TestStale(t *testing.T) {
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	for name, c := range map[string]struct {
		status Status
		want   bool
	}{
		"a moment ago":    {Status{State: Ended, Armed: ago(time.Second)}, false},
		"long ago":        {Status{State: Ended, Armed: ago(time.Minute)}, true},
		"in the future":   {Status{State: Ended, Armed: ago(-time.Hour)}, false},
		"was started":     {Status{State: Ended, Armed: ago(time.Hour), Started: true}, false},
		"waits for it":    {Status{State: Armed, Armed: ago(time.Hour)}, false},
		"goes on":         {Status{State: Recording, Armed: ago(time.Hour)}, false},
		"somebody awaits": {Status{State: Ended, Armed: ago(time.Hour), Options: Options{Awaited: true}}, false},
	} {
		if got := c.status.Stale(time.Minute); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

package main

import (
	"encoding/json"
	"testing"
)

func TestNotReadyUntilEveryForwardIsUp(t *testing.T) {
	tests := []struct{ status, want string }{
		{`{"server": {"connected": false}}`, "no connection to the server"},
		{`{"server": {"connected": true}, "forwards": []}`, "forward web is unknown"},
		{`{"server": {"connected": true}, "forwards": [{"name": "web", "state": "up"}, {"name": "names", "state": "down", "why": "factory is offline"}]}`, "forward names is down: factory is offline"},
		{`{"server": {"connected": true}, "forwards": [{"name": "web", "state": "up"}, {"name": "names", "state": "up"}]}`, ""},
	}
	for _, test := range tests {
		var st portalStatus
		if err := json.Unmarshal([]byte(test.status), &st); err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := st.missing("web", "names"); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s: got %q missing, want %q", test.status, got, test.want)
		}
	}
}

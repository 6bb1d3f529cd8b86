package joining

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// inForce is what the server says of its policy.
type inForce struct {
	Version  uint64 `json:"version"`
	Forwards []struct {
		Name string `json:"Name"`
	} `json:"forwards"`
}

func (w *world) inForce() (p inForce) {
	w.t.Helper()
	if err := json.Unmarshal([]byte(w.ask("policy", "show", "--json")), &p); err != nil {
		w.t.Fatal(err)
	}
	return p
}

func forwards(n int, version string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "domain = %q\n", domain)
	for i := range n {
		fmt.Fprintf(&b, "[[forward]]\nname = \"%s-%d\"\nfrom = \"ann tcp://127.0.%d.%d:80\"\nto = \"plant tcp://10.0.0.5:80\"\n", version, i, i/250, i%250+1)
	}
	return b.String()
}

// B78-B82, B84 (its other half is in package policy), B86, B87, B90: a policy that is not right is refused by check and by apply, at once and with its place, and
// changes nothing of the one in force.
func TestBadPoliciesChangeNothing(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"ann", "plant"} {
		w.ask("issue", "portal", name, "--out", w.folder(name))
	}
	file := filepath.Join(w.dir, "policy.toml")
	good := forwards(1, "good")
	put(t, file, text(good))
	w.ask("policy", "apply", file)
	before := w.inForce()

	cases := badTOML(good)
	replaced := func(old, new string) func(string) error {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q in %s", old, good)
		}
		return text(strings.Replace(good, old, new, 1))
	}
	type bad = struct {
		make func(string) error
		want string
	}
	maps.Copy(cases, map[string]bad{
		"a key misspelt":          {replaced("to =", "tto ="), `policy.toml:5:1: unknown key "forward.tto"; did you mean "to"?`},
		"a key twice":             {replaced("name =", "name = \"a\"\nname ="), "policy.toml:4:1:"},
		"a value of another type": {replaced(`"ann tcp://127.0.0.1:80"`, "80"), "policy.toml:4:8:"},
		"a star":                  {replaced("ann tcp", "* tcp"), `policy.toml:4:8: forward "good-0": name "*"`},
		"no portal":               {replaced("ann tcp", " tcp"), "policy.toml:4:8:"},
		"port 0":                  {replaced("10.0.0.5:80", "10.0.0.5:0"), "policy.toml:5:6:"},
		"a range that goes back":  {replaced("10.0.0.5:80", "10.0.0.5:2-1"), "policy.toml:5:6:"},
		"a prefix":                {replaced("10.0.0.5:80", "10.0.0.0/8:80"), "policy.toml:5:6:"},
		"octal":                   {replaced("10.0.0.5:80", "010.0.0.1:80"), "policy.toml:5:6:"},
		"hexadecimal":             {replaced("10.0.0.5:80", "0x7f.1:80"), "policy.toml:5:6:"},
		"a short form":            {replaced("10.0.0.5:80", "127.1:80"), "policy.toml:5:6:"},
		"a rate without unit":     {text(good + "rate = \"10\"\n"), "policy.toml:6:8:"},
		"a unit that is none":     {text(good + "month = \"1KiBx\"\n"), "policy.toml:6:9:"},
		"a negative size":         {text(good + "month = \"-1MB\"\n"), "policy.toml:6:9:"},
		"more than there can be":  {text(good + "month = \"1e99GB\"\n"), "policy.toml:6:9:"},
		"a time without zone":     {text(good + "until = 2027-01-01T00:00:00\n"), "policy.toml:6:9:"},
		"the size of 1,000,000":   {func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 60e6)) }, "larger than"},
		"another domain":          {replaced(domain, "example.com"), "policy.toml:1:10:"},
		"mode 0666": {func(path string) error {
			return errors.Join(os.WriteFile(path, []byte(good), 0o600), os.Chmod(path, 0o666))
		}, "chmod o-w"},
	})
	if os.Geteuid() == 0 {
		cases["another user's"] = bad{func(path string) error {
			return errors.Join(os.WriteFile(path, []byte(good), 0o644), os.Chmod(path, 0o644), os.Chown(path, 65534, 65534))
		}, "belongs to user 65534"}
	}
	for _, what := range slices.Sorted(maps.Keys(cases)) {
		c := cases[what]
		put(t, file, c.make)
		for _, step := range []string{"check", "apply"} {
			w.refuses(step+": "+what, "server", 2*time.Second, []string{"policy", step, file, "--config", w.config("server")}, "policy.toml", c.want)
		}
	}
	w.server.cmd.Process.Signal(syscall.SIGHUP)
	w.server.waitLog("configuration read anew")
	if after := w.inForce(); after.Version != before.Version || len(after.Forwards) != 1 {
		t.Errorf("in force is %+v, it was %+v", after, before)
	}

	// B81, B85: nothing is allowed, and that is said.
	for what, c := range map[string]struct{ policy, want string }{
		"an empty file":       {"", "everything is denied"},
		"a domain":            {"domain = \"example.org\"\n", "everything is denied"},
		"a name not enrolled": {strings.Replace(good, "plant", "plant-2", 1), `no portal "plant-2" is enrolled`},
	} {
		put(t, file, text(c.policy))
		out, err := w.command("server", "policy", "apply", file, "--config", w.config("server")).CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want) || !strings.Contains(string(out), "0 grants") {
			t.Errorf("%s: %v: %s", what, err, out)
		}
	}
}

// B89: of policies that are applied at once each is in force whole, one after the other, under a version of its own;
// the last of these is what stays. A file that changes meanwhile is read as it was or as it is.
func TestPoliciesAppliedAtOnce(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"ann", "plant"} {
		w.ask("issue", "portal", name, "--out", w.folder(name))
	}
	const each, appliers, rounds = 40, 4, 5
	var mu sync.Mutex
	applied := make(map[uint64]string)
	var running sync.WaitGroup
	for a := range appliers {
		running.Go(func() {
			file := filepath.Join(w.dir, fmt.Sprintf("%d.toml", a))
			for r := range rounds {
				version := fmt.Sprintf("v%d.%d", a, r)
				next := file + ".next"
				if err := errors.Join(os.WriteFile(next, []byte(forwards(each, version)), 0o600), os.Rename(next, file)); err != nil {
					t.Error(err)
					return
				}
				out, err := w.output("server", nil, "policy", "apply", file, "--json", "--config", w.config("server"))
				var result struct {
					Version uint64 `json:"version"`
					Grants  int    `json:"grants"`
				}
				if err == nil {
					err = json.Unmarshal([]byte(out), &result)
				}
				mu.Lock()
				if err != nil || result.Grants != each || applied[result.Version] != "" {
					t.Errorf("%s: %v: %+v, and version %d was %q", version, err, result, result.Version, applied[result.Version])
				}
				applied[result.Version] = version
				mu.Unlock()
			}
		})
	}
	done := make(chan struct{})
	go func() {
		running.Wait()
		close(done)
	}()
	for shown := 0; ; shown++ {
		p := w.inForce()
		first, _, _ := strings.Cut(append(p.Forwards, struct {
			Name string "json:\"Name\""
		}{"-"})[0].Name, "-")
		for _, f := range p.Forwards {
			if !strings.HasPrefix(f.Name, first+"-") {
				t.Fatalf("version %d has forwards of %s and %s", p.Version, first, f.Name)
			}
		}
		select {
		case <-done:
			last := slices.Max(slices.Collect(maps.Keys(applied)))
			if p = w.inForce(); len(applied) != appliers*rounds || p.Version != last || !strings.HasPrefix(p.Forwards[0].Name, applied[last]+"-") || len(p.Forwards) != each {
				t.Errorf("%d versions were applied; in force is %d with %d forwards, the last was %d: %s", len(applied), p.Version, len(p.Forwards), last, applied[last])
			}
			t.Logf("shown %d times meanwhile", shown)
			return
		default:
		}
	}
}

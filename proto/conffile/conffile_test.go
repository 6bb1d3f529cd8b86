package conffile

import (
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/endpoint"
)

type sample struct {
	Domain  string              `toml:"domain"`
	Port    int                 `toml:"port"`
	Groups  map[string][]string `toml:"groups"`
	Forward []struct {
		Name  string            `toml:"name"`
		From  string            `toml:"from"`
		To    endpoint.Endpoint `toml:"to"`
		Until time.Time         `toml:"until"`
	} `toml:"forward"`
}

const good = `domain = "example.org"
[groups]
engineers = ["ann",
	"bo"]
[[forward]]
name = "web"
to = "tcp://10.0.0.5:80"
[[forward]]
name = "dns"
	from = "ann"
`

func TestMistakesAreMarkedWhereTheyStand(t *testing.T) {
	var s sample
	f, err := Parse("p.toml", []byte(good), &s)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ key, want string }{
		{"domain", "p.toml:1:10: bad 7\n    1 | domain = \"example.org\"\n      |          ^"},
		{"groups.engineers[1]", "p.toml:4:2: bad 7\n    4 | \t\"bo\"]\n      | \t^"},
		{"forward[1].from", "p.toml:10:9: bad 7\n   10 | \tfrom = \"ann\"\n      | \t       ^"},
		{"forward[1].until", "p.toml:8:3: bad 7\n    8 | [[forward]]\n      |   ^"},
		{"nothing", "p.toml: bad 7"},
	} {
		if got := f.Errorf(tt.key, "bad %d", 7).Error(); got != tt.want {
			t.Errorf("mistake in %s:\n%s\nwant\n%s", tt.key, got, tt.want)
		}
	}
}

func TestInlineTablesInListsHavePlaces(t *testing.T) {
	var s sample
	f, err := Parse("p.toml", []byte("domain = \"a\"\nforward = [\n  {name = \"web\"},\n  {name = \"dns\", from = \"ann\"},\n]\n"), &s)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"forward[0].name": "p.toml:3:11", "forward[1].from": "p.toml:4:25", "forward[1].until": "p.toml:2:1", "forward[2]": "p.toml:2:1", "nothing": "p.toml",
	} {
		if got := f.Place(key); got != want {
			t.Errorf("%s is at %s, want %s", key, got, want)
		}
	}
	if !f.Has("forward[1].from") || f.Has("forward[0].from") {
		t.Error("what a table holds is known of another")
	}
}

// B78, B79.
func TestBadFilesAreRefusedWithTheirPlace(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", "alow = 1\n", `f:1:1: unknown key "alow"`},
		{"misspelt key", "[[forward]]\nform = \"x\"\n", `f:2:1: unknown key "forward.form"; did you mean "from"?`},
		{"wrong type", "port = \"x\"\n", `f:1:8: key "port": a value of the wrong type`},
		{"duplicate key", "port = 1\nport = 2\n", "f:2:1: "},
		{"no value", "port =\n", "f:1:"},
		{"bad endpoint", "[[forward]]\nto = \"tcp://127.1:80\"\n", `f:2:6: endpoint "tcp://127.1:80": `},
		{"16 parts", strings.Repeat("a.", maxParts-1) + "a = 1", `f:1:1: unknown key "a.a.`},
		{"17 parts", "port = 1\n" + strings.Repeat("a.", maxParts) + "a = 1", "f:2:32: a key of more than 16 parts"},
		{"UTF-16", "\xff\xfed\x00o\x00", "f: it is not UTF-8 text"},
		{"terminal escapes", "x\x1b[2J = 1\n", "f:1:"},
	} {
		var s sample
		_, err := Parse("f", []byte(tt.text), &s)
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: error\n%v\nwant prefix\n%s", tt.name, err, tt.want)
		}
		if err != nil && strings.ContainsRune(err.Error(), 0x1b) {
			t.Errorf("%s: the error carries an escape to the terminal", tt.name)
		}
	}
}

func TestByteOrderMarkAndCRLFAreRead(t *testing.T) {
	var s sample
	f, err := Parse("f", []byte("\ufeffdomain = \"a\"\r\nport = 3\r\n"), &s)
	if err != nil || s.Domain != "a" || s.Port != 3 {
		t.Fatalf("got %+v, %v", s, err)
	}
	if got, want := f.Errorf("port", "x").Error(), "f:2:8: x\n    2 | port = 3\n      |        ^"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWhatIsNoSmallFileIsRefused(t *testing.T) {
	var s sample
	for _, name := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none"), "/dev/zero"} {
		if _, err := Load(name, &s); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("Load(%s) = %v, want an error of one line", name, err)
		}
	}
}

func TestPathsAreRelativeToTheFile(t *testing.T) {
	f := &File{Name: "/etc/netport/config.toml"}
	for in, want := range map[string]string{"ca.pem": "/etc/netport/ca.pem", "/a/b": "/a/b", "": ""} {
		if got := f.Path(in); got != want {
			t.Errorf("Path(%q) = %q, want %q", in, got, want)
		}
	}
}

// B80: what is nested, dotted or long costs a second and 64 MB at most, and what is said of it stays short.
func TestDeepAndLongFilesAreRefusedSoon(t *testing.T) {
	for name, text := range map[string]string{
		"arrays":            "a = " + strings.Repeat("[", 15_000_000),
		"closed arrays":     "a = " + strings.Repeat("[", 500_000) + strings.Repeat("]", 500_000),
		"inline tables":     "a = " + strings.Repeat("{a=", 5_000_000),
		"dotted key":        strings.Repeat("a.", 5_000_000) + "a = 1",
		"dotted known key":  "groups." + strings.Repeat("a.", 5_000_000) + "a = 1",
		"quoted dotted key": strings.Repeat("\"a'\\\"\" . ''.", 1_000_000) + "a = 1",
		"behind strings":    "domain = \"\"\"x\"\\\"\"\"\"\nport = 1\ngroups." + strings.Repeat("a.", 5_000_000) + "a = []",
		"dotted table":      "[" + strings.Repeat("a.", 5_000_000) + "a]\nb = 1",
		"empty tables":      "forward = [" + strings.Repeat("{},", 5_000_000) + "]",
		"headers":           strings.Repeat("[[forward]]\n", 1_100_000),
		"long key":          strings.Repeat("a", 1_000_000) + " = 1",
		"long key, twice":   strings.Repeat(strings.Repeat("a", 1_000_000)+" = 1\n", 2),
		"long known key":    "groups." + strings.Repeat("a", 1_000_000) + " = 1",
		"late mistake":      strings.Repeat("\n", 2_000_000) + "x",
		"long line":         "domain = " + strings.Repeat("a", 1_000_000),
	} {
		var s sample
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begin := time.Now()
		_, err := Parse("f", []byte(text), &s)
		spent := time.Since(begin)
		runtime.ReadMemStats(&after)
		// The message has three lines: what, the line, the mark below it.
		if err == nil || len(err.Error()) > 5000 {
			t.Errorf("%s: %.200v", name, err)
		}
		if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 64 {
			t.Errorf("%s: %d MB for a file of %d MB", name, used, len(text)>>20)
		}
		if spent > 5*time.Second {
			t.Errorf("%s: took %v", name, spent)
		}
	}
}

// What only looks as if it went beyond a bound is read.
func TestBoundsCountNoText(t *testing.T) {
	dots, commas := strings.Repeat(".", 100), strings.Repeat(",", maxValues+1)
	for name, text := range map[string]string{
		"a comment":          "# " + dots + commas + "\nport = 1\n",
		"a string":           "domain = \"" + dots + commas + "\\\"" + dots + "\"\n",
		"a literal":          "domain = '" + dots + commas + "\\'\n",
		"many lines":         "domain = \"\"\"" + dots + "\n" + commas + "\"\"\\\"\"\"" + dots + "\"\"\"\"\"\n",
		"many literal lines": "domain = '''" + dots + "\n" + commas + "''" + dots + "'''\n",
	} {
		var s sample
		if _, err := Parse("f", []byte(text), &s); err != nil {
			t.Errorf("%s: %.300v", name, err)
		}
	}
}

// Any text is read or refused in its place, and none twice in two ways.
func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("domain = \"\"\"a\n\"\\\"\"\"\"\"\nport = 1 # x\ngroups = {a = ['b'], \"c.d\" = ['''e''']}\n"))
	f.Add([]byte("[groups]\n" + strings.Repeat("a.", maxParts) + "a = []\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s sample
		file, err := Parse("f", b, &s)
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok || len(err.Error()) > 5000 {
				t.Fatalf("%T of %d bytes: %.200v", err, len(err.Error()), err)
			}
			return
		}
		for key := range file.place {
			if !file.Has(key) || !strings.HasPrefix(file.Place(key), "f:") {
				t.Fatalf("%q is nowhere", key)
			}
		}
	})
}

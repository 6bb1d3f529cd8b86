package conffile

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"sort"
	"strings"
)

// Environment is what the environment says of a configuration: variables with one
// prefix, named for the keys of the file. A key in a table has that before it:
//
//	NETPORT_PORTAL_LOG_LEVEL=debug
//	NETPORT_PORTAL_SERVERS='["a.example.org", "b.example.org:8443"]'
//	NETPORT_PORTAL_DIAL_ALLOW='["tcp://10.0.0.5:80"]'
//
// A value is what stands behind "key =" in the file; a text may do without quotes. A
// variable has more weight than the file. One with the prefix that names no key is an
// error, as an unknown key is, except those by which Kubernetes tells a container of a
// service that is called like a role.
type Environment struct {
	Prefix string   // "NETPORT_PORTAL_"
	List   []string // as os.Environ has it
}

// LoadWith is Load for a configuration that the environment may change. Where there is
// no file and standard is its name, the environment alone is the configuration, if it
// says anything. v holds the defaults.
func LoadWith(name, standard string, e Environment, v any) (*File, error) {
	set, err := e.variables(v)
	if err != nil {
		return nil, err
	}
	f, err := Load(name, v)
	if errors.Is(err, fs.ErrNotExist) && name == standard && len(set) > 0 {
		f, err = Parse(name, nil, v)
	}
	if err != nil {
		return nil, err
	}
	f.variables = make(map[string]string, len(set))
	for _, s := range set {
		if err := s.read(v); err != nil {
			return nil, err
		}
		f.variables[s.key.Name] = s.name
	}
	return f, nil
}

// Variable returns the name of the variable that sets a key.
func (e Environment) Variable(key string) string {
	return e.Prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// Help tells of the variables that stand for the keys of v, for "run --help".
func (e Environment) Help(v any) string {
	var b strings.Builder
	fmt.Fprintf(&b, `Variables of the environment may stand for keys of the configuration, and have more
weight than the file; where there is none at the usual place, they may be all of it. A
value is what stands behind "=" in the file; a text may do without quotes:
  %s=debug %s='["HOST:PORT"]'
They are:`, e.Variable("log_level"), e.Variable("servers"))
	width := 80
	for _, k := range KeysOf(v) {
		name := e.Variable(k.Name)
		if width+1+len(name) > 80 {
			b.WriteString("\n ")
			width = 1
		}
		b.WriteString(" " + name)
		width += 1 + len(name)
	}
	return b.String()
}

// variable is one that sets a key.
type variable struct {
	name, value string
	key         Key
}

// variables returns those that set keys of v, in the order of their names.
func (e Environment) variables(v any) (set []variable, err error) {
	keys := make(map[string]Key)
	for _, k := range KeysOf(v) {
		keys[e.Variable(k.Name)] = k
	}
	for _, s := range e.List {
		name, value, _ := strings.Cut(s, "=")
		word, ours := strings.CutPrefix(name, e.Prefix)
		k, ok := keys[name]
		if !ours || !ok && isService(word) {
			continue
		}
		if !ok {
			text := "it names no key of the configuration"
			known := make([]string, 0, len(keys))
			for k := range keys {
				known = append(known, strings.TrimPrefix(k, e.Prefix))
			}
			slices.Sort(known)
			if near := nearest(word, known); near != "" {
				text += fmt.Sprintf("; did you mean %s?", e.Prefix+near)
			}
			return nil, inVariable(firstRunes(name, 100), text)
		}
		set = append(set, variable{name, value, k})
	}
	sort.Slice(set, func(i, j int) bool { return set[i].name < set[j].name })
	return set, nil
}

// isService reports whether what follows the prefix is of a variable by which Kubernetes
// names a service: NETPORT_SERVER_SERVICE_HOST, NETPORT_SERVER_PORT_443_TCP_ADDR.
func isService(word string) bool {
	port, numbered := strings.CutPrefix(word, "PORT_")
	return word == "PORT" || word == "SERVICE_HOST" || word == "SERVICE_PORT" || strings.HasPrefix(word, "SERVICE_PORT_") ||
		numbered && port != "" && '0' <= port[0] && port[0] <= '9'
}

// read puts the value of a variable into v.
func (s variable) read(v any) error {
	value := s.value
	if s.key.typ.Kind() == reflect.String && (value == "" || !strings.ContainsAny(value[:1], `"'`)) {
		reflect.Indirect(reflect.ValueOf(v)).FieldByIndex(s.key.index).SetString(value)
		return nil
	}
	f, err := Parse(s.name, []byte(s.key.Name+" = "+value), v)
	if err != nil {
		text := err.Error()
		if bad, ok := errors.AsType[*Error](err); ok {
			text = bad.Text
		}
		return inVariable(s.name, text)
	}
	for key := range f.place {
		if key != s.key.Name && !strings.HasPrefix(key, s.key.Name+"[") {
			return inVariable(s.name, "it holds more than one value")
		}
	}
	return nil
}

// inVariable is a mistake in a variable of the environment.
func inVariable(name, text string) error {
	return &Error{File: "environment variable " + name, Text: text}
}

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/topo"
)

const pgPort = 5432

// pgProgram finds a program of PostgreSQL's, which Debian keeps out of PATH.
func pgProgram(t *testing.T, name string) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		need.Program(t, name)
		return name
	}
	return found[len(found)-1]
}

// startPostgres starts a PostgreSQL of its own on the host and returns the folder of its Unix socket. It listens at TCP, too.
func startPostgres(t *testing.T, host *topo.Host) (sockets string) {
	t.Helper()
	initdb, postgres := pgProgram(t, "initdb"), pgProgram(t, "postgres")
	dir := host.DirOf("postgres")
	data, sockets := filepath.Join(dir, "data"), filepath.Join(dir, "run")
	for _, open := range []string{dir, sockets} {
		await.Success(t, host.Command("install", "--directory", "--owner", "postgres", "--mode", "755", open))
	}
	init := host.Command(initdb, "--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync", "--pgdata", data).As("postgres")
	init.Dir = dir
	await.Success(t, init)
	hba, err := os.OpenFile(filepath.Join(data, "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer hba.Close()
	if _, err := hba.WriteString("host all all samenet trust\n"); err != nil {
		t.Fatal(err)
	}
	server := host.Command(postgres, "-D", data, "-k", sockets, "-p", fmt.Sprint(pgPort), "-c", "listen_addresses=*", "-c", "fsync=off").As("postgres")
	server.Dir = dir
	host.Start(server).WaitLog("ready to accept connections")
	return sockets
}

// psql is psql without anyone's settings.
func psql(host *topo.Host, at string, args ...string) *topo.Cmd {
	args = append([]string{"--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1", "--host", at, "--port", fmt.Sprint(pgPort), "--username", "postgres"}, args...)
	return host.Command("psql", args...).As("nobody")
}

// psql finds a Unix socket by a folder's name. PostgreSQL runs where the exit portal runs, since its own socket is there.
func TestPostgreSQL(t *testing.T) {
	need.Program(t, "psql")
	w := newWorld(t)
	sockets := startPostgres(t, w.factory.Host())
	socket := func(dir string) string { return "unix://" + dir + "/.s.PGSQL.5432" }
	entry := w.laptop.Host().DirOf("nobody")
	gateway := w.laptop.Host().Addr()
	tcp := w.factory.Host().Addr()
	w.allow(t,
		forward{name: "unix-unix", from: socket(entry), to: socket(sockets)},
		forward{name: "tcp-unix", from: endpoint("tcp", gateway, pgPort), to: socket(sockets)},
		forward{name: "tcp-tcp", from: endpoint("tcp", w.clients()[0].entry, pgPort), to: endpoint("tcp", tcp, pgPort)},
	)

	for _, c := range []struct {
		name  string
		table string
		host  *topo.Host
		at    string
	}{
		{"Unix socket to Unix socket", "unix_unix", w.laptop.Host(), entry},
		{"TCP to Unix socket, beside the portal", "tcp_unix", w.guest, gateway.String()},
		{"TCP to TCP", "tcp_tcp", w.laptop.Host(), w.clients()[0].entry.String()},
	} {
		t.Run(c.name, func(t *testing.T) {
			const rows = 100_000
			const sum = rows * (rows + 1) / 2
			transaction := psql(c.host, c.at)
			transaction.Stdin = strings.NewReader(fmt.Sprintf(`
				begin;
				create table %[1]s (id int primary key, text text);
				insert into %[1]s select i, repeat(md5(i::text), 4) from generate_series(1, %[2]d) i;
				select count(*), sum(id) from %[1]s;
				commit;
				select count(*), sum(id) from %[1]s;
				begin; delete from %[1]s; rollback;`, c.table, rows))
			if got, want := await.Success(t, transaction), strings.Repeat(fmt.Sprintf("%d|%d\n", rows, sum), 2); got != want {
				t.Errorf("got %q, want %q", got, want)
			}

			file := filepath.Join(c.host.DirOf("nobody"), c.table)
			await.Success(t, psql(c.host, c.at, "--command", `\copy (select * from `+c.table+` order by id) to '`+file+`'`))
			await.Success(t, psql(c.host, c.at, "--command", "create table copy_"+c.table+" (like "+c.table+")"))
			await.Success(t, psql(c.host, c.at, "--command", `\copy copy_`+c.table+` from '`+file+`'`))
			different := psql(c.host, c.at, "--command", "select count(*), count(distinct a), count(distinct b) from "+c.table+" a full join copy_"+c.table+" b on a = b")
			if got, want := await.Success(t, different), fmt.Sprintf("%[1]d|%[1]d|%[1]d\n", rows); got != want {
				t.Errorf("the copy: got %q, want %q", got, want)
			}

			if r := await.Exit(t, psql(c.host, c.at, "--command", "select 1/0")); r.Status == 0 || !strings.Contains(r.Stderr, "division by zero") {
				t.Errorf("an error of the server: got %+v", r)
			}
		})
	}
}

package manual

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
)

func program() *cobra.Command {
	root := command.Root("netport-test", "Test")
	leaf := func(use string) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: "Do " + use, Example: "  netport-test " + use, Args: command.Args(),
			RunE: func(*cobra.Command, []string) error { return nil },
		}
	}
	group := command.Group(&cobra.Command{Use: "policy", Short: "Keep the policy"})
	group.AddCommand(leaf("apply"))
	root.AddCommand(group, leaf("run"))
	return root
}

func TestEveryCommandHasAPage(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1760000000")
	dir := t.TempDir()
	if err := Write(program(), dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"netport-test":              "netport-test-run(1)",
		"netport-test-policy":       "netport-test-policy-apply(1)",
		"netport-test-policy-apply": "netport-test apply",
		"netport-test-run":          "netport-test run",
	} {
		page, err := os.ReadFile(filepath.Join(dir, "man", name+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		text := strings.ReplaceAll(string(page), `\fB`, "")
		text = strings.ReplaceAll(text, `\fP`, "")
		for _, want := range []string{want, "Oct 2025", strings.ToUpper(name)} {
			if !strings.Contains(text, want) {
				t.Errorf("the page %s has no %q:\n%s", name, want, page)
			}
		}
	}
	if list, err := os.ReadDir(filepath.Join(dir, "man")); err != nil || len(list) != 4 {
		t.Errorf("pages %v (%v), want 4", list, err)
	}
}

func TestShellsCanReadTheCompletions(t *testing.T) {
	dir := t.TempDir()
	if err := Write(program(), dir); err != nil {
		t.Fatal(err)
	}
	for shell, file := range map[string]string{"bash": "bash/netport-test", "zsh": "zsh/_netport-test", "fish": "fish/netport-test.fish"} {
		if text, err := os.ReadFile(filepath.Join(dir, file)); err != nil || !strings.Contains(string(text), "netport-test") {
			t.Errorf("%s: %.40q, %v", file, text, err)
		}
		if _, err := exec.LookPath(shell); err != nil {
			continue // the packages' check says what it did not find
		}
		if out, err := exec.Command(shell, "-n", filepath.Join(dir, file)).CombinedOutput(); err != nil {
			t.Errorf("%s -n %s: %v: %s", shell, file, err, out)
		}
	}
}

package doctor

// lack is something that portals do on Linux and not on every other system. The README has
// the same list, in the same words.
type lack struct {
	text           string
	windows, macOS bool     // where it is missing
	files          []string // that do it on Linux, from the root of the tree
}

// lacks are all there are.
var lacks = []lack{
	{"keys in a TPM are refused", true, true, []string{
		"portal/internal/keystore/tpm/key_linux.go", "portal/internal/keystore/tpm/session_linux.go",
		"portal/internal/keystore/tpm/tpm_linux.go", "portal/internal/keystore/tpm/transport_linux.go"}},
	{"the users of a listener (listen.users) are refused: the system does not tell who connects", true, true, []string{"portal/internal/users/owner_linux.go"}},
	{"a change of the network is noticed within 5 seconds, not at once", true, true, []string{"portal/internal/network/look_linux.go"}},
	{"no router is asked to map ports for direct paths: which one it is is not known", true, true, []string{"portal/internal/network/look_linux.go"}},
	{"two portals on one machine reach each other by the addresses of its interfaces, not by loopback", true, true, []string{"portal/internal/network/machine_linux.go"}},
	{"that the machine has slept is seen by its wall clock alone", true, true, []string{"portal/internal/network/clock_linux.go"}},
	{"a listener for UDP on all addresses answers from the address that the system picks", true, true, []string{"portal/internal/entry/destination_linux.go"}},
	{"a connection whose other side has vanished is ended when the system gives it up", true, true, []string{"portal/internal/vanish/look_linux.go"}},
	{"the largest packet of a path is not measured, nor are full segments that a network swallows", true, true, []string{
		"portal/internal/doctor/mtu_linux.go", "portal/internal/path/tcp_linux.go"}},
	{"after a cut, TCP may wait some seconds longer than the network does", true, true, []string{"proto/control/retry_linux.go"}},
	{"small streams may wait behind what the system has taken of large ones, and lost segments are not counted", true, true, []string{
		"portal/internal/carrier/tcp_lowat_linux.go", "portal/internal/carrier/tcp_info_linux.go"}},
	{"after a change of the network, packets of QUIC may be cut on their way, and their marks (ECN) are not read", true, true, []string{"portal/internal/path/packet/options_linux.go"}},
	{"a client of UDP hears that its target cannot be reached only by silence", true, false, []string{"portal/internal/exit/icmp_linux.go"}},
	{"a target of UDP that cannot be reached is told from one that is closed only by silence", false, true, []string{"portal/internal/exit/icmp_linux.go"}},
	{"pages of the program that are not used for long stay in memory", true, true, []string{"proto/memory/program_linux.go"}},
	{"metrics do not count descriptors", true, true, []string{"proto/metrics/process_linux.go"}},
	{"other programs of the same user may read the process's memory", true, true, []string{"proto/command/guard_memory_linux.go"}},
	{"root's commands make root's files, not files of the folder's owner", false, true, []string{"proto/folder/owner_linux.go"}},
	{"each open connection holds a buffer while it waits", true, false, []string{"portal/internal/carrier/rawio/rawio_unix.go"}},
}

// missing returns what a system (as runtime.GOOS names it) lacks.
func missing(system string) (texts []string) {
	for _, l := range lacks {
		if l.windows && system == "windows" || l.macOS && system != "windows" && system != "linux" {
			texts = append(texts, l.text)
		}
	}
	return texts
}

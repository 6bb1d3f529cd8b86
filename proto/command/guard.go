package command

// Guard keeps what the process holds from other users of the machine, and from other
// processes of its own user: files and sockets that it makes are its user's alone from the
// moment they exist, and nobody reads keys out of its memory, by ptrace or a core file.
// It is called first.
func Guard() {
	privateFiles()
	guardMemory()
}

package doctor

// System returns what this system lacks: nothing.
func System() []Line { return nil }

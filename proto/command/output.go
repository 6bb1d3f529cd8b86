package command

import "io"

// output is a command's standard output. It keeps the first error: a command that could
// not print what it was asked for has failed (a token that nobody has read is lost), also
// where the command itself does not look.
type output struct {
	io.Writer
	err error
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.Writer.Write(b)
	if err != nil && o.err == nil {
		o.err = err
	}
	return n, err
}

// Close tells whoever reads that nothing more comes, where that can be told.
func (o *output) Close() error {
	if c, ok := o.Writer.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Package clock tells the time on devices that may not know it: boards without a
// battery that begin in 1970, a clock that somebody set wrong.
//
// A portal or relay goes by the clock of its system, but never by a time before its
// program was built, before what servers told in earlier lives, or before what one has told in
// this, and the time that has passed since. So this floor only ever moves a clock that is behind.
// One that is ahead stays as it is, for nothing here proves it wrong: the handshakes that it
// breaks say so.
//
// Welcome and Enrolled tell the time. It is taken only if the server's certificate
// is valid at it ([identity.Early]). During these handshakes a certificate that is not valid yet by
// the local clock passes, if all else is right, and is judged again when the time was told; one
// that has expired does not. Saved for the next life is nothing but what servers told, so that a
// local clock that was wrong for a day leaves no trace, and in small steps, so that a server that
// lies cannot leave much of one: it rises by at most 7 days at once, and once an hour.
//
// Where a clock jumps, timers go on, and so does what is valid by the new clock. What has
// ended by it, a stamp, a permission or a certificate, ends what runs under it at that
// portal within a minute; server and relay end nothing that runs for it.
package clock

package exit

import "golang.org/x/sys/windows"

// What the system says when a target cannot be reached, by its meaning.
var (
	refusedErrnos   = []error{windows.WSAECONNREFUSED, windows.WSAECONNRESET}
	timeoutErrnos   = []error{windows.WSAETIMEDOUT}
	unreachedErrnos = []error{windows.WSAEHOSTUNREACH, windows.WSAENETUNREACH, windows.WSAEHOSTDOWN, windows.WSAENETDOWN}
	oversizedErrnos = []error{windows.WSAEMSGSIZE}
)

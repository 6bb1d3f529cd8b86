package doctor

import (
	"errors"
	"fmt"

	"github.com/netport/netport/proto/proxy"
)

// judgeProxy says whether the proxy is there and lets this portal through, from what became of
// the connections that were tried over it. To what it connects stands with the servers and
// relays.
func judgeProxy(r *Report, f Facts) {
	url, tried, passed := "", 0, 0
	var worst error
	take := func(through string, t Try) {
		if through == "" {
			return
		}
		url = through
		tried++
		if t.Fault != AtProxy {
			passed++
			return
		}
		if worst == nil || proxyFault(t.Err) > proxyFault(worst) {
			worst = t.Err // one that declines is reached
		}
	}
	for _, s := range f.Servers {
		take(s.Proxy, s.Try)
	}
	for _, o := range f.Relays {
		if o.TCPPort != 0 {
			take(o.Proxy, o.TCP)
		}
	}
	what := "proxy " + url
	switch {
	case tried == 0:
	case passed > 0:
		r.add(what, OK, fmt.Sprintf("it connects to %d of the %d ports of servers and relays that were tried", passed, tried), "")
	case proxyFault(worst) == proxy.Declined:
		r.add(what, Failed, "it is reached, and connects to no server and no relay", proxyAdvice(worst))
	default:
		r.add(what, Failed, oneLine(worst), proxyAdvice(worst))
	}
}

func proxyFault(err error) proxy.Fault {
	var e *proxy.Error
	if errors.As(err, &e) {
		return e.Fault
	}
	return 0
}

// proxyAdvice says what to do about what a proxy has said.
func proxyAdvice(err error) string {
	switch proxyFault(err) {
	case proxy.Unauthorized:
		return "see to the user in proxy and to the password in proxy_password_file of the configuration"
	case proxy.Declined:
		return "have the proxy's operator let it connect there (CONNECT)"
	}
	return "see to proxy in the configuration: its host and port, and whether it speaks what its URL begins with"
}

package portmap

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	// upnpTime bounds the search for a router with its description, and each request with
	// those that it needs.
	upnpTime = 3 * time.Second
	// conflicts is how many external ports are tried that others may have.
	conflicts = 4
)

// Error codes of WANIPConnection.
const (
	noSuchEntry   = "714"
	conflict      = "718"
	onlyPermanent = "725"
)

// upnp speaks UPnP IGD.
type upnp struct {
	web
	service service
}

// findUPnP searches for a UPnP router at the gateway.
func findUPnP(ctx context.Context, at place, port uint16) (speaker, error) {
	ctx, cancel := context.WithTimeout(ctx, upnpTime)
	defer cancel()
	u := &upnp{web: web{at}}
	var bad error
	err := search(ctx, at, port, func(location *url.URL) bool {
		page, err := u.get(ctx, location)
		if err == nil {
			u.service, err = describe(page, location, at.gateway)
		}
		bad = err
		return err == nil
	})
	switch {
	case err == nil:
		return u, nil
	case bad != nil:
		return nil, bad
	}
	return nil, err
}

func (u *upnp) add(ctx context.Context, port Port, near netip.AddrPort) (grant, error) {
	ctx, cancel := context.WithTimeout(ctx, upnpTime)
	defer cancel()
	text, err := u.call(ctx, "GetExternalIPAddress", "", "NewExternalIPAddress")
	if err != nil {
		return grant{}, err
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return grant{}, fmt.Errorf("the router says that its external address is %q", text)
	}
	external := near.Port()
	for try := 1; ; try++ {
		_, err := u.call(ctx, "AddPortMapping", fmt.Sprintf("<NewRemoteHost></NewRemoteHost><NewExternalPort>%d</NewExternalPort><NewProtocol>%s</NewProtocol>"+
			"<NewInternalPort>%d</NewInternalPort><NewInternalClient>%s</NewInternalClient><NewEnabled>1</NewEnabled>"+
			"<NewPortMappingDescription>netport</NewPortMappingDescription><NewLeaseDuration>%d</NewLeaseDuration>",
			external, protocolName(port.Transport), port.Number, u.local, int(lease/time.Second)), "")
		if err == nil {
			break
		}
		if !errors.Is(err, refusal{"UPnP error " + conflict}) || try == conflicts {
			return doubtful(err, netip.AddrPortFrom(addr, external)), said(err)
		}
		external = uint16(20000 + rand.IntN(40000))
	}
	return grant{netip.AddrPortFrom(addr, external), lease}, nil
}

func protocolName(t wire.CandidateTransport) string {
	if t == wire.CandidateTCP {
		return "TCP"
	}
	return "UDP"
}

// said explains what people cannot know.
func said(err error) error {
	if errors.Is(err, refusal{"UPnP error " + onlyPermanent}) {
		return refusal{"it maps for ever only, and nothing that this portal opens is to stay open"}
	}
	return err
}

func (u *upnp) remove(ctx context.Context, port Port, external netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, upnpTime)
	defer cancel()
	_, err := u.call(ctx, "DeletePortMapping", fmt.Sprintf("<NewRemoteHost></NewRemoteHost><NewExternalPort>%d</NewExternalPort><NewProtocol>%s</NewProtocol>", external.Port(), protocolName(port.Transport)), "")
	if errors.Is(err, refusal{"UPnP error " + noSuchEntry}) {
		return nil
	}
	return err
}

// restarted is never seen: UPnP tells nothing of that. A renewal makes what was lost anew.
func (u *upnp) restarted() bool { return false }

// call calls an action with arguments in XML, and returns one of its results.
func (u *upnp) call(ctx context.Context, action, arguments, result string) (value string, err error) {
	body := fmt.Appendf(nil, `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">`+
		`<s:Body><u:%s xmlns:u="%s">%s</u:%s></s:Body></s:Envelope>`, action, u.service.kind, arguments, action)
	head := fmt.Sprintf("Content-Type: text/xml; charset=\"utf-8\"\r\nSOAPAction: \"%s#%s\"\r\n", u.service.kind, action)
	status, answer, err := u.do(ctx, u.service.control, "POST", head, body)
	if err != nil {
		return "", err
	}
	code := ""
	err = texts(answer, func(name, text string) {
		switch name {
		case "errorCode":
			code = text
		case result:
			value = text
		}
	})
	switch {
	case err != nil:
		return "", fmt.Errorf("read the router's answer to %s: %w", action, err)
	case len(code) == 3:
		return "", refusal{"UPnP error " + code}
	case status != 200:
		return "", refusal{fmt.Sprintf("HTTP status %d", status)}
	}
	return value, nil
}

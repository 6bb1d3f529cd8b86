package portmap

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// maxDepth bounds how deep elements lie in each other.
const maxDepth = 32

// kinds are the services that map ports, the best first (UPnP IGD 1 and 2).
var kinds = []string{
	"urn:schemas-upnp-org:service:WANIPConnection:2",
	"urn:schemas-upnp-org:service:WANIPConnection:1",
	"urn:schemas-upnp-org:service:WANPPPConnection:1",
}

// service is one that maps ports.
type service struct {
	kind    string // of kinds
	control *url.URL
}

// describe finds the best service in the description of a router that was read at an
// address. It must be at the gateway itself.
func describe(page []byte, at *url.URL, gateway netip.Addr) (best service, err error) {
	base, kind, refused := at, "", error(nil)
	rank := len(kinds)
	err = texts(page, func(name, text string) {
		switch name {
		case "URLBase":
			if u, err := atGateway(text, nil, gateway); err != nil {
				refused = err
			} else {
				base = u
			}
		case "serviceType":
			kind = text
		case "controlURL":
			i := slices.Index(kinds, kind)
			if kind = ""; i < 0 || i >= rank {
				return
			}
			u, err := atGateway(text, base, gateway)
			if err != nil {
				refused = err
				return
			}
			best, rank = service{kinds[i], u}, i
		}
	})
	switch {
	case err != nil:
		return service{}, fmt.Errorf("read the router's description: %w", err)
	case refused != nil:
		return service{}, refused
	case best.control == nil:
		return service{}, errors.New("the router is one of UPnP that maps no ports")
	}
	return best, nil
}

// texts calls take with the text of each element of an XML document that has any, without
// the spaces around it. What the document defines itself (DTD, entities) is an error.
func texts(page []byte, take func(name, text string)) error {
	// What is looked for is ASCII; names of routers are in whatever they say, or do not say.
	for i, c := range page {
		if c >= 0x80 {
			page[i] = '?'
		}
	}
	d := xml.NewDecoder(bytes.NewReader(page))
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	var text strings.Builder
	for depth := 0; ; {
		token, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch token := token.(type) {
		case xml.Directive:
			return errors.New("it has definitions of its own, which are not read")
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return errors.New("its elements lie too deep in each other")
			}
			text.Reset()
		case xml.CharData:
			text.Write(token)
		case xml.EndElement:
			depth--
			if s := strings.TrimSpace(text.String()); s != "" {
				take(token.Name.Local, s)
			}
			text.Reset()
		}
	}
}

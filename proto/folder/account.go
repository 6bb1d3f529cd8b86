package folder

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

// Service is what the portal's service is called on Windows, and its account, which
// exists because the service does.
const Service = "netport-portal"

// serviceSID returns the SID of the account of a Windows service, which follows from its
// name: the SHA-1 of that in capitals and UTF-16, as five numbers.
func serviceSID(name string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(strings.ToUpper(name))) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	sum := sha1.Sum(b)
	sid := "S-1-5-80"
	for i := 0; i < len(sum); i += 4 {
		sid += fmt.Sprintf("-%d", binary.LittleEndian.Uint32(sum[i:]))
	}
	return sid
}

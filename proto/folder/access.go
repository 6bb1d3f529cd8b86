package folder

import (
	"fmt"
	"strings"
)

// Windows has no modes: an access control list says who may do what, and the owner may
// always change that list. What is here judges a list; what reads and writes one is in
// access_windows.go.

// What may be done with a file or a folder, as access masks say it.
const (
	readData    = 0x1
	writeData   = 0x2 // of a folder: make files in it
	appendData  = 0x4 // of a folder: make folders in it
	deleteChild = 0x40
	deleteSelf  = 0x1_0000
	writeList   = 0x4_0000
	writeOwner  = 0x8_0000
	genericAll  = 0x1000_0000
	genericPut  = 0x4000_0000
	genericGet  = 0x8000_0000

	// toReplace are the rights that let something else be put in the place of a folder or
	// of what is in it.
	toReplace = deleteChild | deleteSelf | writeList | writeOwner | genericAll
	toChange  = toReplace | writeData | appendData | genericPut
	toUse     = toChange | readData | genericGet
)

// Who is the system itself, or rules it anyway. OWNER RIGHTS are the owner's, who is
// looked at by himself, and CREATOR OWNER's are those of whoever makes something.
var rulers = []string{
	"S-1-5-18",     // SYSTEM
	"S-1-5-32-544", // Administrators
	"S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464", // TrustedInstaller
	"S-1-3-4", // OWNER RIGHTS
	"S-1-3-0", // CREATOR OWNER
}

// domainAdmins end the SIDs of the administrators of a domain, which begin with inDomain.
const inDomain, domainAdmins = "S-1-5-21-", "-512"

// access is one entry of a list that allows something.
type access struct {
	sid  string
	mask uint32
	// later is set where it holds only for what is made in the folder.
	later bool
}

// security is what protects one file or folder.
type security struct {
	owner  string // SID
	open   bool   // there is no list: everybody may do everything
	allows []access
}

// stranger returns one who is neither a ruler of the system nor one of us, and has any of
// these rights; heirs has what will be made in the folder looked at as well. Entries that
// deny are passed over: who allows and denies the same is told to tidy up.
func (s security) stranger(rights uint32, heirs bool, us []string) (sid string, found bool) {
	known := func(sid string) bool {
		for _, list := range [][]string{rulers, us} {
			for _, k := range list {
				if sid == k {
					return true
				}
			}
		}
		return strings.HasPrefix(sid, inDomain) && strings.HasSuffix(sid, domainAdmins)
	}
	switch {
	case s.open:
		return everyone, true
	case !known(s.owner):
		return s.owner, true
	}
	for _, a := range s.allows {
		if a.mask&rights != 0 && (!a.later || heirs) && !known(a.sid) {
			return a.sid, true
		}
	}
	return "", false
}

const everyone = "S-1-1-0"

// private is the list, in SDDL, that keeps a file or a folder and what is in it for these
// and for the rulers, and takes nothing over from the folder above.
func private(us []string) string {
	list := "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
	for _, sid := range us {
		list += fmt.Sprintf("(A;OICI;FA;;;%s)", sid)
	}
	return list
}

package folder

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/windows"
)

const fileAllAccess = 0x1F_01FF

// ForService gives the account of the portal's service a folder and all that is in it, or
// will be. Nobody loses what he may.
func ForService(dir string) error {
	sid, err := windows.StringToSid(serviceSID(Service))
	if err != nil {
		return fmt.Errorf("name the account of the service: %w", err)
	}
	var pins runtime.Pinner
	defer pins.Unpin()
	pins.Pin(sid)
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		entry := windows.EXPLICIT_ACCESS{
			AccessPermissions: fileAllAccess,
			AccessMode:        windows.GRANT_ACCESS,
			Trustee:           windows.TRUSTEE{TrusteeForm: windows.TRUSTEE_IS_SID, TrusteeValue: windows.TrusteeValueFromSID(sid)},
		}
		if d.IsDir() {
			entry.Inheritance = windows.SUB_CONTAINERS_AND_OBJECTS_INHERIT
		}
		return add(path, entry)
	})
}

// add adds an entry to the list of a file or folder.
func add(path string, entry windows.EXPLICIT_ACCESS) error {
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("read the access control list of %s: %w", path, err)
	}
	list, _, err := sd.DACL()
	if err == nil {
		list, err = windows.ACLFromEntries([]windows.EXPLICIT_ACCESS{entry}, list)
	}
	if err != nil {
		return fmt.Errorf("change the access control list of %s: %w", path, err)
	}
	return setList(path, list, 0)
}

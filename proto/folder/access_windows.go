package folder

import (
	"errors"
	"fmt"
	"io/fs"
	"unsafe"

	"golang.org/x/sys/windows"
)

const callbackAllows = 9 // ACCESS_ALLOWED_CALLBACK_ACE: one with a condition, laid out as one without

// us returns who this process is, and the account of the portal's service.
func us() []string {
	list := []string{serviceSID(Service)}
	if user, err := windows.GetCurrentProcessToken().GetTokenUser(); err == nil {
		list = append(list, user.User.Sid.String())
	}
	return list
}

// open opens a file, folder or socket for what is said of it, not for what is in it. link
// has a link, or a socket, opened itself.
func open(path string, access uint32, link bool) (windows.Handle, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, err
	}
	flags := uint32(windows.FILE_FLAG_BACKUP_SEMANTICS)
	if link {
		flags |= windows.FILE_FLAG_OPEN_REPARSE_POINT
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	return windows.CreateFile(name, access, share, nil, windows.OPEN_EXISTING, flags, 0)
}

// securityOf reads what protects a file or folder.
func securityOf(path string) (s security, err error) {
	h, err := open(path, windows.READ_CONTROL, false)
	if err != nil {
		return s, fmt.Errorf("read the access control list of %s: %w", path, err)
	}
	defer windows.CloseHandle(h)
	sd, err := windows.GetSecurityInfo(h, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return s, fmt.Errorf("read the access control list of %s: %w", path, err)
	}
	owner, _, err := sd.Owner()
	if err == nil && owner != nil {
		s.owner = owner.String()
	}
	list, _, err := sd.DACL()
	if err != nil || list == nil {
		s.open = true // as on a disk that keeps no lists
		return s, nil
	}
	for i := range uint32(list.AceCount) {
		var e *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(list, i, &e); err != nil {
			return s, fmt.Errorf("read the access control list of %s: %w", path, err)
		}
		if e.Header.AceType != windows.ACCESS_ALLOWED_ACE_TYPE && e.Header.AceType != callbackAllows {
			continue
		}
		s.allows = append(s.allows, access{
			sid:   (*windows.SID)(unsafe.Pointer(&e.SidStart)).String(),
			mask:  uint32(e.Mask),
			later: e.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0,
		})
	}
	return s, nil
}

// refuse says who else has rights to a file or folder, what he can do with it, and what is
// to be done; "" is to keep him out.
func refuse(path string, rights uint32, can, do string) error {
	s, err := securityOf(path)
	if err != nil {
		return err
	}
	who, found := s.stranger(rights, false, us())
	if !found {
		return nil
	}
	if s.open {
		return fmt.Errorf("everybody %s %s, which has no access control list: use a disk of NTFS", can, path)
	}
	if do == "" {
		do = advice(path)
	}
	return fmt.Errorf("%s %s %s; %s", nameOf(who), can, path, do)
}

// advice is the command that does the same by hand.
func advice(path string) string {
	return fmt.Sprintf(`run: icacls "%s" /inheritance:r /grant:r *S-1-5-18:F *S-1-5-32-544:F "%%USERNAME%%":F`, path)
}

// nameOf returns the name of a user or group, and its SID where it has none.
func nameOf(sid string) string {
	id, err := windows.StringToSid(sid)
	if err != nil {
		return "a user without a name"
	}
	account, domain, _, err := id.LookupAccount("")
	switch {
	case err != nil:
		return sid
	case domain == "":
		return account
	}
	return domain + `\` + account
}

func checkOwn(dir string, _ fs.FileInfo) error {
	return refuse(dir, toChange, "can write in the folder", "")
}

// foreign passes links over: to make one takes a right that users do not have, and what
// it leads to is looked at.
func foreign(fs.FileInfo) (uid uint32, ok bool) { return 0, false }

func checkOne(dir string) error {
	// The list of a folder that others share is not ours to close.
	return refuse(dir, toReplace, "can replace what is in the folder", "use another folder, as in ProgramData or below a user's own")
}

// CheckSecret refuses a file that others than the user of this process and the
// administrators can read or write, or in whose place others can put another
// (CheckAbove). A link is judged by what it points to.
func CheckSecret(file string, _ fs.FileInfo) error {
	if err := refuse(file, toUse, "can use", ""); err != nil {
		return err
	}
	return CheckAbove(file)
}

// guarded reports whether what is made in a folder is kept from others by the list that
// it takes over.
func guarded(dir string) bool {
	s, err := securityOf(dir)
	if err != nil {
		return false
	}
	_, found := s.stranger(toUse, true, us())
	return !found
}

// forUs returns a list that keeps out everybody but us.
func forUs() (*windows.SECURITY_DESCRIPTOR, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, fmt.Errorf("see who this process is: %w", err)
	}
	return windows.SecurityDescriptorFromString(private([]string{user.User.Sid.String()}))
}

// Restrict leaves a file or socket to the user of this process and the administrators.
func Restrict(file string) error {
	sd, err := forUs()
	if err != nil {
		return err
	}
	list, _, err := sd.DACL()
	if err != nil {
		return err
	}
	return setList(file, list, windows.PROTECTED_DACL_SECURITY_INFORMATION)
}

// setList gives a file or folder, not what a link leads to, another list.
func setList(path string, list *windows.ACL, how windows.SECURITY_INFORMATION) error {
	h, err := open(path, windows.READ_CONTROL|windows.WRITE_DAC, true)
	if err == nil {
		err = windows.SetSecurityInfo(h, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|how, nil, nil, list, nil)
		err = errors.Join(err, windows.CloseHandle(h))
	}
	if err != nil {
		return fmt.Errorf("change the access control list of %s: %w", path, err)
	}
	return nil
}

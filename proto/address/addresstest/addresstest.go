// Package addresstest has the writings of addresses that nobody may be led to by what
// somebody else says: this machine, its link, the metadata services of clouds, groups.
package addresstest

// Forbidden are addresses, each by itself or by what it stands for.
var Forbidden = []string{
	"127.0.0.1", "127.0.0.2", "127.255.255.254", "::1", "0:0:0:0:0:0:0:1", "::1%lo",
	"::ffff:127.0.0.1", "::ffff:7f00:1", "0:0:0:0:0:ffff:7f00:1", "::127.0.0.1", "::ffff:0:127.0.0.1",
	"64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "64:ff9b:1:7f00:0:100::", "2002:7f00:1::", "2002:7f00:1::1",
	"2001:0:7f00:1::1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001:db8::5efe:7f00:1", "2001:db8::200:5efe:7f00:1",
	"0.0.0.0", "0.0.0.1", "0.255.255.255", "::", "::ffff:0.0.0.0", "::ffff:0:0", "64:ff9b::",
	"169.254.169.254", "169.254.0.1", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
	"fd00:ec2::254", "100.100.100.200", "::ffff:100.100.100.200",
	"fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "2001:db8::1%eth0",
	"224.0.0.1", "224.0.0.251", "239.255.255.255", "ff02::1", "ff05::2", "::ffff:224.0.0.1",
	"255.255.255.255", "::ffff:255.255.255.255", "240.0.0.1",
}

// Words are what a lax reader takes for one of these, or looks up and finds there.
var Words = []string{
	"127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.0.0.1.", "127.000.000.001", "017700000001", "0",
	"localhost", "localhost.", "LOCALHOST", "LocalHost", "ip6-localhost", "ip6-loopback", "a.localhost", "a.localhost.",
	"[::1]", "[::ffff:127.0.0.1]", "1.1.1.1%00127.0.0.1", "1.1.1.1\n127.0.0.1", "1.1.1.1\x00127.0.0.1", "127.0.0.1%lo", "①②⑦.0.0.1", "127。0。0。1",
}

# What a program of a hostile guest tries. Prints a line for each attempt: its name, and what came of it.
use strict;
use POSIX ();
use Fcntl qw(:DEFAULT S_IFBLK S_IFCHR);

# The host's loop device, by its minor number.
my $minor = $ARGV[0];
my %call = (POSIX::uname())[4] eq 'aarch64'
    ? (mknodat => 33, mount => 40, umount => 39, unshare => 97, keyctl => 219, init_module => 105,
       reboot => 142, ptrace => 117, open_by_handle_at => 265, setns => 268, swapon => 224, sethostname => 161)
    : (mknodat => 259, mount => 165, umount => 166, unshare => 272, keyctl => 250, init_module => 175,
       reboot => 169, ptrace => 101, open_by_handle_at => 304, setns => 308, swapon => 167, sethostname => 170);

sub say_ { print "$_[0]: $_[1]\n" }
sub tried { say_($_[0], $_[1] ? "done" : POSIX::strerror($! + 0)) }
sub made { syscall($call{mknodat}, -100, my $p = $_[0], $_[1] | 0600, $_[2]) == 0 }
sub opened { sysopen(my $f, $_[0], $_[1] // O_RDONLY) }
sub written {
    sysopen(my $f, $_[0], O_WRONLY) or return;
    return defined syswrite($f, $_[1]);
}
my $empty = "";

# What has to work: the controls of all that follows.
tried("own disk", opened("/dev/sda"));
tried("null", written("/dev/null", "x"));
tried("shared memory", open(my $shm, ">", "/dev/shm/x"));
tried("node in the guest", made("/null", S_IFCHR, 1 * 256 + 3));
tried("owner", chown(1, 1, "/null"));
mkdir "/jail";
mkdir "/elsewhere";

# Nodes, wherever something can be written.
my $device = 7 * 256 + $minor;
for my $dir ("", "/dev", "/dev/shm", "/dev/pts", "/dev/disk", "/sys", "/proc", "/tmp") {
    my $node = "$dir/node";
    my $outcome = !made($node, S_IFBLK, $device) ? POSIX::strerror($! + 0)
        : opened($node) ? "REACHED" : "made, " . POSIX::strerror($! + 0);
    say_("node in $dir/", $outcome);
}
tried("name in /dev", link("/dev/sda", "/dev/mine"));
tried("move in /dev", rename("/dev/null", "/dev/mine"));
opendir(my $dev, "/dev") or die;
say_("loop devices", join(" ", sort grep { /loop/ } readdir $dev) || "none");

# Mounts and namespaces.
my ($none, $here, $proc) = ("none", "/elsewhere", "proc");
tried("mount", syscall($call{mount}, $none, $here, $proc, 0, 0) == 0);
my $sys = "/sys";
tried("remount", syscall($call{mount}, $none, $sys, $empty, 32 | 4096, 0) == 0);
my $partitions = "/proc/partitions";
tried("umount", syscall($call{umount}, $partitions, 2) == 0);
tried("user namespace", syscall($call{unshare}, 0x10000000) == 0);
tried("mount namespace", syscall($call{unshare}, 0x00020000) == 0);
tried("root of process 1", opened("/proc/1/root/etc/shadow"));
tried("descriptors of process 1", grep { opened("/proc/1/fd/$_") } 0 .. 32);
opendir(my $processes, "/proc") or die;
tried("root of the daemon", grep { /^\d+$/ && $_ != $$ && opened("/proc/$_/root/guestfsd") } readdir $processes);
tried("memory of process 1", opened("/proc/1/mem", O_RDWR));
tried("ptrace", syscall($call{ptrace}, 16, 1, 0, 0) == 0);

# The host's kernel.
tried("sysctl", written("/proc/sys/kernel/core_pattern", "|/x"));
tried("sysrq", written("/proc/sysrq-trigger", "h"));
tried("drop_caches", written("/proc/sys/vm/drop_caches", "1"));
tried("a queue of the host", written("/sys/block/sda/queue/read_ahead_kb", "64"));
tried("kcore", opened("/proc/kcore"));
tried("kmsg", opened("/proc/kmsg"));
tried("keys", syscall($call{keyctl}, 0, -4, 0) >= 0);
tried("module", syscall($call{init_module}, $empty, 0, $empty) == 0);
tried("reboot", syscall($call{reboot}, 0, 0, 0, 0) == 0);
tried("swap", syscall($call{swapon}, my $disk = "/dev/sda", 0) == 0);
tried("host name", syscall($call{sethostname}, my $name = "x", 1) == 0);
tried("file by handle", syscall($call{open_by_handle_at}, 3, my $handle = pack("IIQ", 8, 1, 2), 0) >= 0);

# Out of the guest's root directory, the way that chroot(2) leaves open.
tried("chroot", chroot("/jail"));
chdir("..") for 1 .. 64;
chroot(".");
opendir(my $root, ".") or die;
say_("around the root", join(" ", sort grep { !/^\.\.?$/ } readdir $root) || "nothing");

//! The kernel's TCM-User interface: ring, UIO, generic netlink, configfs.

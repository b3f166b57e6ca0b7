// SPDX-License-Identifier: Apache-2.0
//! Errnos and their names, by which other machines are told of them, since numbers differ.

/// A Linux error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($name:ident)*) => {
        #[allow(missing_docs)]
        impl Errno {
            $(pub const $name: Self = Self(libc::$name);)*
        }
        const NAMES: &[(i32, &str)] = &[$((libc::$name, stringify!($name))),*];
    };
}

errnos! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT
    ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG
    ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP
    ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI EL2HLT EBADE EBADR EXFULL
    ENOANO EBADRQC EBADSLT EBFONT ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG EREMOTE ENOLINK EADV
    ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG ELIBACC
    ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ
    EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT ENOTSUP EPFNOSUPPORT
    EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET
    ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN
    EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT
    ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD
    ENOTRECOVERABLE ERFKILL
}

impl Errno {
    /// The error of this number.
    pub fn from_raw(number: i32) -> Self {
        Self(number)
    }

    /// Its number on this machine.
    pub fn raw(self) -> i32 {
        self.0
    }

    /// Its name, such as `ENOENT`; empty for a number without one.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(number, _)| *number == self.0).map_or("", |(_, name)| name)
    }

    /// The error of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = match name {
            "EWOULDBLOCK" => "EAGAIN",
            "EDEADLOCK" => "EDEADLK",
            "EOPNOTSUPP" => "ENOTSUP",
            name => name,
        };
        NAMES.iter().find(|(_, n)| *n == name).map(|(number, _)| Self(*number))
    }

    /// What it means, such as `No such file or directory`.
    pub fn describe(self) -> String {
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        match text.rfind(" (os error ") {
            Some(end) => text[..end].to_owned(),
            None => text,
        }
    }
}

impl From<&std::io::Error> for Errno {
    /// The error's number; EIO for one that the kernel did not give.
    fn from(e: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match (e.raw_os_error(), e.kind()) {
            (Some(number), _) => Self(number),
            (None, Kind::InvalidData | Kind::InvalidInput) => Self::EINVAL,
            (None, Kind::OutOfMemory) => Self::ENOMEM,
            (None, Kind::BrokenPipe) => Self::EPIPE,
            (None, _) => Self::EIO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_map_both_ways() {
        assert_eq!(Errno::from_raw(2).name(), "ENOENT");
        assert_eq!(Errno::from_name("ENOENT"), Some(Errno::ENOENT));
        assert_eq!(Errno::from_name("EWOULDBLOCK"), Some(Errno::EAGAIN));
        assert_eq!(Errno::from_raw(9999).name(), "");
        assert_eq!(Errno::from_name(""), None);
    }

    #[test]
    fn the_description_has_no_number_in_it() {
        assert_eq!(Errno::ENOENT.describe(), "No such file or directory");
    }
}

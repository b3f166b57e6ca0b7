// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // Calls of a C library.
//! libaugeas: its functions, with strings of Rust's, and its errors with all that it says about them.

use crate::library::Library;
use guest_error::{Errno, Error, Result};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::{NonNull, null, null_mut};

/// `AUG_NO_STDINC`: look for lenses in the path that is given only.
pub(super) const NO_STDINC: c_uint = 1 << 3;
/// `AUG_NO_ERR_CLOSE`: after a failed `aug_init` the handle can say why.
const NO_ERR_CLOSE: c_uint = 1 << 8;

/// augeas's errors (`aug_errcode_t`, from 1 on) as ours.
const ERRNOS: [Errno; 15] = [
    Errno::ENOMEM, // out of memory
    Errno::EIO,    // internal
    Errno::EINVAL, // path expression
    Errno::ENOENT, // no match
    Errno::EINVAL, // too many matches
    Errno::EINVAL, // syntax of a lens
    Errno::ENOENT, // no such lens
    Errno::EINVAL, // more than one transform
    Errno::EINVAL, // no span
    Errno::EINVAL, // moving into a descendant
    Errno::EIO,    // running a command
    Errno::EINVAL, // bad argument
    Errno::EINVAL, // label
    Errno::EINVAL, // copying into a descendant
    Errno::EACCES, // access to a file
];

/// Defines the table of functions, and how it is filled.
macro_rules! functions {
    ($($name:ident = $symbol:literal: fn($($arg:ty),*) $(-> $ret:ty)?;)*) => {
        /// The library's functions.
        #[derive(Debug)]
        pub(super) struct Functions {
            $($name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
        }

        impl Functions {
            /// Loads the library.
            pub(super) fn load() -> Result<Self> {
                let library = Library::open(c"libaugeas.so.0")?;
                Ok(Self {
                    $($name: {
                        let address = library.symbol($symbol)?.as_ptr();
                        // SAFETY: the function has this type in every version of libaugeas.so.0.
                        unsafe {
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($arg),*) $(-> $ret)?,
                            >(address)
                        }
                    },)*
                })
            }
        }
    };
}

type Handle = *mut c_void;
type Text = *const c_char;

functions! {
    init = c"aug_init": fn(Text, Text, c_uint) -> Handle;
    close = c"aug_close": fn(Handle);
    defvar = c"aug_defvar": fn(Handle, Text, Text) -> c_int;
    defnode = c"aug_defnode": fn(Handle, Text, Text, Text, *mut c_int) -> c_int;
    get = c"aug_get": fn(Handle, Text, *mut Text) -> c_int;
    label = c"aug_label": fn(Handle, Text, *mut Text) -> c_int;
    set = c"aug_set": fn(Handle, Text, Text) -> c_int;
    setm = c"aug_setm": fn(Handle, Text, Text, Text) -> c_int;
    insert = c"aug_insert": fn(Handle, Text, Text, c_int) -> c_int;
    rm = c"aug_rm": fn(Handle, Text) -> c_int;
    mv = c"aug_mv": fn(Handle, Text, Text) -> c_int;
    find = c"aug_match": fn(Handle, Text, *mut *mut *mut c_char) -> c_int;
    save = c"aug_save": fn(Handle) -> c_int;
    load_files = c"aug_load": fn(Handle) -> c_int;
    transform = c"aug_transform": fn(Handle, Text, Text, c_int) -> c_int;
    error = c"aug_error": fn(Handle) -> c_int;
    error_message = c"aug_error_message": fn(Handle) -> Text;
    error_minor_message = c"aug_error_minor_message": fn(Handle) -> Text;
    error_details = c"aug_error_details": fn(Handle) -> Text;
}

/// A tree of augeas.
#[derive(Debug)]
pub(super) struct Tree<'f> {
    functions: &'f Functions,
    handle: NonNull<c_void>,
}

/// A string or none, as C has it.
fn pointer(text: Option<&CStr>) -> Text {
    text.map_or(null(), CStr::as_ptr)
}

/// Calls a function of the library with the handle before its arguments.
macro_rules! call {
    ($tree:expr, $name:ident $(, $arg:expr)*) => {
        // SAFETY: the handle is open, strings are C strings (or null where augeas allows it) that live
        // through the call, results are written to variables of this function.
        unsafe { ($tree.functions.$name)($tree.handle.as_ptr() $(, $arg)*) }
    };
}

impl<'f> Tree<'f> {
    /// Opens a tree below this directory, with lenses from these.
    pub(super) fn open(
        functions: &'f Functions,
        root: &CStr,
        lenses: &CStr,
        flags: c_uint,
    ) -> Result<Self> {
        // SAFETY: the arguments are C strings.
        let handle =
            unsafe { (functions.init)(root.as_ptr(), lenses.as_ptr(), flags | NO_ERR_CLOSE) };
        let handle = NonNull::new(handle)
            .ok_or_else(|| Error::new(Errno::ENOMEM, "augeas could not be started"))?;
        let tree = Self { functions, handle };
        if call!(tree, error) != 0 {
            Err(tree.failure("augeas could not be started"))
        } else {
            Ok(tree)
        }
    }

    /// Defines a variable; returns the number of nodes it stands for.
    pub(super) fn defvar(&self, name: &CStr, expr: Option<&CStr>) -> Result<c_int> {
        self.count(call!(self, defvar, name.as_ptr(), pointer(expr)))
    }

    /// Defines a variable, with a node made if there is none; returns the number of nodes, and of those made.
    pub(super) fn defnode(&self, name: &CStr, expr: &CStr, value: &CStr) -> Result<(c_int, c_int)> {
        let mut made = 0;
        let (name, expr, value) = (name.as_ptr(), expr.as_ptr(), value.as_ptr());
        let n = self.count(call!(self, defnode, name, expr, value, &raw mut made))?;
        Ok((n, made))
    }

    /// The value of the one node; none inside if it has none, none if there is no node.
    pub(super) fn get(&self, path: &CStr) -> Result<Option<Option<CString>>> {
        let mut value = null();
        let found = self.count(call!(self, get, path.as_ptr(), &raw mut value))?;
        Ok((found > 0).then(|| owned(value)))
    }

    /// The label of the one node, as [`Self::get`].
    pub(super) fn label(&self, path: &CStr) -> Result<Option<Option<CString>>> {
        let mut value = null();
        let found = self.count(call!(self, label, path.as_ptr(), &raw mut value))?;
        Ok((found > 0).then(|| owned(value)))
    }

    /// Sets a node's value, or takes it away; makes the node.
    pub(super) fn set(&self, path: &CStr, value: Option<&CStr>) -> Result<c_int> {
        self.count(call!(self, set, path.as_ptr(), pointer(value)))
    }

    /// Sets many nodes' values; returns their number.
    pub(super) fn setm(&self, base: &CStr, sub: Option<&CStr>, value: &CStr) -> Result<c_int> {
        self.count(call!(self, setm, base.as_ptr(), pointer(sub), value.as_ptr()))
    }

    /// Makes a sibling of a node.
    pub(super) fn insert(&self, path: &CStr, label: &CStr, before: bool) -> Result<c_int> {
        self.count(call!(self, insert, path.as_ptr(), label.as_ptr(), before.into()))
    }

    /// Removes nodes; returns their number.
    pub(super) fn rm(&self, path: &CStr) -> Result<c_int> {
        self.count(call!(self, rm, path.as_ptr()))
    }

    /// Moves a node.
    pub(super) fn mv(&self, from: &CStr, to: &CStr) -> Result<c_int> {
        self.count(call!(self, mv, from.as_ptr(), to.as_ptr()))
    }

    /// Paths of the nodes that match.
    pub(super) fn find(&self, path: &CStr) -> Result<Vec<CString>> {
        let mut list: *mut *mut c_char = null_mut();
        let n = self.count(call!(self, find, path.as_ptr(), &raw mut list))?;
        let mut found = Vec::new();
        if list.is_null() {
            return Ok(found);
        }
        for i in 0..usize::try_from(n).unwrap_or(0) {
            // SAFETY: the list has that many pointers, each to a string that is ours to free, or null.
            unsafe {
                let text = *list.add(i);
                found.extend(owned(text));
                libc::free(text.cast());
            }
        }
        // SAFETY: the list is ours to free.
        unsafe { libc::free(list.cast()) };
        Ok(found)
    }

    /// Writes what was changed to files.
    pub(super) fn save(&self) -> Result<c_int> {
        let done = call!(self, save);
        if done < 0 && call!(self, error) == 0 {
            return Err(Error::new(Errno::EIO, self.unsaved()?));
        }
        self.count(done)
    }

    /// Reads files.
    pub(super) fn load(&self) -> Result<c_int> {
        self.count(call!(self, load_files))
    }

    /// Adds a file to, or takes it from, those that a lens is for.
    pub(super) fn transform(&self, lens: &CStr, file: &CStr, excl: bool) -> Result<c_int> {
        self.count(call!(self, transform, lens.as_ptr(), file.as_ptr(), excl.into()))
    }

    /// The number, unless it says that there was an error.
    fn count(&self, result: c_int) -> Result<c_int> {
        if result < 0 {
            Err(self.failure("augeas failed and does not say why"))
        } else {
            Ok(result)
        }
    }

    /// The error that the handle reports.
    fn failure(&self, otherwise: &str) -> Error {
        let code = usize::try_from(call!(self, error)).unwrap_or(0);
        let errno = code.checked_sub(1).and_then(|i| ERRNOS.get(i));
        if code == 0 {
            return Error::new(Errno::EINVAL, otherwise);
        }
        let parts = [
            call!(self, error_message),
            call!(self, error_minor_message),
            call!(self, error_details),
        ];
        let parts: Vec<String> = parts
            .into_iter()
            .filter_map(owned)
            .map(|text| text.to_string_lossy().into_owned())
            .filter(|text| !text.is_empty())
            .collect();
        Error::new(errno.copied().unwrap_or(Errno::EIO), parts.join(": "))
    }

    /// Which files could not be written, and why: augeas leaves that in the tree.
    fn unsaved(&self) -> Result<String> {
        /// So many are named.
        const NAMED: usize = 4;
        let mut parts = Vec::new();
        for node in self.find(c"/augeas/files//error[not(. =~ regexp('(parse|read)_failed'))]")? {
            let node = node.to_string_lossy().into_owned();
            let file = node.strip_prefix("/augeas/files").and_then(|f| f.strip_suffix("/error"));
            let message = CString::new(format!("{node}/message")).ok();
            let why = message.and_then(|m| self.get(&m).ok().flatten().flatten());
            let why = why.as_deref().map_or_else(Default::default, CStr::to_string_lossy);
            let why = why.lines().next().unwrap_or("no reason given");
            parts.push(format!("{}: {why}", file.unwrap_or(&node)));
        }
        let more = parts.len().saturating_sub(NAMED);
        parts.truncate(NAMED);
        if more > 0 {
            parts.push(format!("and {more} more files"));
        }
        Ok(if parts.is_empty() { "files could not be written".into() } else { parts.join("; ") })
    }
}

impl Drop for Tree<'_> {
    fn drop(&mut self) {
        call!(self, close);
    }
}

/// A copy of a string of the library's.
fn owned(text: Text) -> Option<CString> {
    // SAFETY: what the library hands out is null or a C string that lives until the next call.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_owned())
}

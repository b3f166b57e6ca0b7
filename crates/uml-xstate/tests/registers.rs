// SPDX-License-Identifier: Apache-2.0
//! The library that is preloaded into User-Mode Linux, on a process that is traced. This test uses `unsafe` to
//! load the library, to fork and to trace.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code, clippy::unwrap_used, reason = "a test of ptrace")]

use std::ffi::{CString, c_int, c_long, c_void};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

type Ptrace = unsafe extern "C" fn(c_long, c_int, usize, *mut c_void) -> c_long;

const GETREGSET: c_long = 0x4204;
const SETREGSET: c_long = 0x4205;
const NT_X86_XSTATE: usize = 0x202;
/// x87, SSE and AVX, with the header: less than what any CPU has that knows AVX-512.
const SHORT: usize = 832;
/// The first byte of XMM0, and the bitmap of components.
const XMM0: usize = 160;
const XSTATE_BV: usize = 512;

fn registers(ptrace: Ptrace, request: c_long, pid: c_int, bytes: &mut [u8]) -> (c_long, usize) {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: the kernel reads or writes as many bytes as `part` says.
    let result = unsafe { ptrace(request, pid, NT_X86_XSTATE, (&raw mut part).cast()) };
    (result, part.iov_len)
}

#[test]
fn registers_that_are_not_all_of_them_can_be_set() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(uml_xstate::LIBRARY).unwrap();
    let path = CString::new(file.path().as_os_str().as_bytes()).unwrap();
    // SAFETY: the library's constructors do nothing, and `ptrace` has this type.
    let preloaded: Ptrace = unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        assert!(!library.is_null());
        std::mem::transmute(libc::dlsym(library, c"ptrace".as_ptr()))
    };
    // SAFETY: the child makes system calls only.
    let pid = unsafe {
        match libc::fork() {
            0 => {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                libc::raise(libc::SIGSTOP);
                libc::_exit(0)
            }
            pid => pid,
        }
    };
    assert!(pid > 0);
    // SAFETY: it is our child.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };

    let mut before = vec![0; 64 << 10];
    let (result, len) = registers(preloaded, GETREGSET, pid, &mut before);
    assert_eq!(result, 0);
    let mut part = before[..SHORT.min(len)].to_vec();
    part[XMM0] ^= 0xFF;
    part[XSTATE_BV] |= 2;
    let (result, _) = registers(preloaded, SETREGSET, pid, &mut part);
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    let mut after = vec![0; 64 << 10];
    let (result, again) = registers(preloaded, GETREGSET, pid, &mut after);
    assert_eq!((result, again), (0, len));
    assert_eq!(after[XMM0], before[XMM0] ^ 0xFF);
    // Errors are reported as libc does.
    let (result, _) = registers(preloaded, GETREGSET, 0x3FFF_FFFF, &mut after);
    assert_eq!(result, -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ESRCH));
    // SAFETY: it is our child.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}

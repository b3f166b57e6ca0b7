// SPDX-License-Identifier: Apache-2.0
//! Preloaded into User-Mode Linux on CPUs that have more registers than it has room for.
//!
//! UML keeps some 2.6 KiB of a thread's extended registers, which is enough up to AVX-512 and PKRU, and
//! gives them back with PTRACE_SETREGSET. The host's kernel takes all of its state or nothing: where
//! AMX makes that 11 KiB, it answers EFAULT, and UML panics at its first process. Here, after EFAULT,
//! the thread's present state is read, what UML has is laid over it, and all of it is written.
//!
//! This is a library of its own without std, of which build.rs makes the root; it takes the place of
//! ptrace(2) there. As a module of this crate it is compiled for the lints alone.
//!
//! This module uses `unsafe` for system calls, and for the registers that they read and write.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_long, c_void};

const PEEK: core::ops::RangeInclusive<c_long> = 1..=3;
const GETREGSET: c_long = 0x4204;
const SETREGSET: c_long = 0x4205;
const NT_X86_XSTATE: usize = 0x202;
const SYS_PTRACE: c_long = 101;
const EFAULT: c_int = 14;
/// Where the bitmap of components is, in 64-bit words.
const XSTATE_BV: usize = 64;
/// Components that UML knows: x87, SSE, AVX, MPX, AVX-512, PKRU.
const KNOWN: u64 = 0x2ff;
/// Words of the largest state there may be: 64 KiB.
const WORDS: usize = 8192;

#[repr(C)]
struct Iovec {
    base: *mut c_void,
    len: usize,
}

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

/// The system call: its result, or the errno, negative.
///
/// # Safety
/// `data` is what the request takes it for: ptrace(2) tells.
unsafe fn call(request: c_long, pid: c_long, address: usize, data: *mut c_void) -> c_long {
    let result;
    // SAFETY: the kernel takes its arguments from these registers, keeps all but those that are
    // named, and uses `data` as the caller promises.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") SYS_PTRACE => result,
            in("rdi") request,
            in("rsi") pid,
            in("rdx") address,
            in("r10") data,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// ptrace(2), as libc has it.
///
/// # Safety
/// As there: `data` is what the request takes it for.
// SAFETY: it has the type of libc's function of this name, and does the same.
#[unsafe(no_mangle)]
unsafe extern "C" fn ptrace(
    request: c_long,
    pid: c_int,
    address: usize,
    data: *mut c_void,
) -> c_long {
    let pid = c_long::from(pid);
    let mut word: c_long = 0;
    // libc returns what is peeked; the system call stores it.
    let peek = PEEK.contains(&request);
    let to = if peek { (&raw mut word).cast() } else { data };
    // SAFETY: the caller's promise; what is peeked goes to `word`.
    let mut result = unsafe { call(request, pid, address, to) };
    if result == c_long::from(-EFAULT) && request == SETREGSET && address == NT_X86_XSTATE {
        // SAFETY: for this request `data` is an iovec, says the caller.
        result = unsafe { set_all(pid, data.cast()) };
    }
    if result < 0 {
        // SAFETY: libc has the address of this thread's errno.
        unsafe { *__errno_location() = c_int::try_from(-result).unwrap_or(EFAULT) };
        return -1;
    }
    if peek { word } else { result }
}

/// Room for a whole state. UML's stacks are small, and one of its threads runs at a time.
struct Room(core::cell::UnsafeCell<[u64; WORDS]>);
// SAFETY: `set_all` is called by one thread at a time, see above.
unsafe impl Sync for Room {}
static ROOM: Room = Room(core::cell::UnsafeCell::new([0; WORDS]));

/// Sets all registers: those that `part` has, the others as they are.
///
/// # Safety
/// `part` is an iovec whose bytes can be read, and no other thread does the same.
unsafe fn set_all(pid: c_long, part: *const Iovec) -> c_long {
    // SAFETY: nobody else has a reference, for this is not called twice at a time.
    let whole = unsafe { &mut *ROOM.0.get() };
    let mut all = Iovec { base: whole.as_mut_ptr().cast(), len: WORDS * 8 };
    // SAFETY: the kernel writes at most as many bytes as `all` says, which `whole` has.
    let result = unsafe { call(GETREGSET, pid, NT_X86_XSTATE, (&raw mut all).cast()) };
    if result < 0 {
        return result;
    }
    let present = whole[XSTATE_BV];
    // SAFETY: the caller's promise.
    let (base, len) = unsafe { ((*part).base.cast::<u8>(), (*part).len.min(all.len)) };
    // SAFETY: so many bytes are in the part, and in `whole`, of which the kernel filled as many.
    unsafe { core::ptr::copy_nonoverlapping(base, whole.as_mut_ptr().cast::<u8>(), len) };
    whole[XSTATE_BV] = (whole[XSTATE_BV] & KNOWN) | (present & !KNOWN);
    all.base = whole.as_mut_ptr().cast();
    // SAFETY: the kernel reads as many bytes as `all` says.
    unsafe { call(SETREGSET, pid, NT_X86_XSTATE, (&raw mut all).cast()) }
}

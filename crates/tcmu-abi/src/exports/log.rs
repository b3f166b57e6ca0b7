// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to export functions to C.
//!
//! What C code logs: `tcmu_err_message` and the like, which are variadic and therefore C themselves
//! (`log.c`), format a text; it goes to the [`Sink`] that the program or library has installed. Without
//! one it is lost.
#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc, reason = "what C passes is told in the parent module")]

use std::arch::naked_asm;
use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;

use crate::Device;

/// How much somebody wants to know, in tcmu.conf's numbers. A level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Start, stop, and what ends the program.
    Crit,
    /// Something failed.
    Error,
    /// Something is odd.
    Warning,
    /// What happens to devices.
    Info,
    /// Steps inside.
    Debug,
    /// Every SCSI command.
    DebugScsiCmd,
}

/// All levels: label in a line, name in prose, and the priority of syslog(3) that
/// `tcmu_get_log_level` tells.
const LEVELS: [(Level, &str, &str, c_uint); 6] = [
    (Level::Crit, "CRIT", "CRIT", 2),
    (Level::Error, "ERROR", "ERROR", 3),
    (Level::Warning, "WARN", "WARNING", 4),
    (Level::Info, "INFO", "INFO", 6),
    (Level::Debug, "DEBUG", "DEBUG", 7),
    (Level::DebugScsiCmd, "DEBUG_SCSI_CMD", "DEBUG SCSI CMD", 8),
];

impl Level {
    /// The level of a number; beyond the last one, the last one.
    pub fn from_number(number: c_int) -> Level {
        let number = usize::try_from(number).unwrap_or(0);
        LEVELS.get(number).map_or(Level::DebugScsiCmd, |row| row.0)
    }

    fn row(self) -> &'static (Level, &'static str, &'static str, c_uint) {
        &LEVELS[self as usize]
    }

    /// The level of what `tracing` calls so; it has none for what is critical.
    pub fn of(level: tracing::Level) -> Level {
        match level {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warning,
            tracing::Level::INFO => Level::Info,
            tracing::Level::DEBUG => Level::Debug,
            tracing::Level::TRACE => Level::DebugScsiCmd,
        }
    }

    /// What `tracing` lets through at this level.
    pub fn filter(self) -> LevelFilter {
        match self {
            Level::Crit | Level::Error => LevelFilter::ERROR,
            Level::Warning => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::DebugScsiCmd => LevelFilter::TRACE,
        }
    }

    /// As a line of a log shows it.
    pub fn label(self) -> &'static str {
        self.row().1
    }

    /// The priority of syslog(3); that of `DebugScsiCmd` is beyond its last one.
    pub fn priority(self) -> c_uint {
        self.row().3
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().2)
    }
}

/// Where C code's log lines go.
pub trait Sink: Send + Sync {
    /// The level up to which lines are wanted.
    fn level(&self) -> Level;
    /// Changes it, if that is for C code to decide.
    fn set_level(&self, level: Level);
    /// The directory of log files.
    fn directory(&self) -> PathBuf;
    /// Takes a line: about which device, from which function, the text without its end.
    fn log(&self, level: Level, device: Option<&Device>, function: &str, line: i32, text: &str);
}

static SINK: OnceLock<Box<dyn Sink>> = OnceLock::new();

/// Exports the variadic functions of `log.c`: under a name of Rust's, since a shared library exports
/// no others, a jump to the function of C's, which finds its arguments where the caller put them.
macro_rules! variadic {
    ($($name:ident $inner:ident;)*) => {
        unsafe extern "C" {
            $(fn $inner(
                device: *mut c_void,
                function: *const c_char,
                line: c_int,
                format: *const c_char,
                ...
            );)*
        }

        $(
            /// `void (dev or null, function, line, format, ...)`, as printf(3) formats: logs a line.
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name() {
                #[cfg(target_arch = "x86_64")]
                naked_asm!("jmp {}", sym $inner);
                #[cfg(target_arch = "aarch64")]
                naked_asm!("b {}", sym $inner);
            }
        )*
    };
}

variadic! {
    tcmu_crit_message tcmu_abi_crit_message;
    tcmu_err_message tcmu_abi_err_message;
    tcmu_warn_message tcmu_abi_warn_message;
    tcmu_info_message tcmu_abi_info_message;
    tcmu_dbg_message tcmu_abi_dbg_message;
    tcmu_dbg_scsi_cmd_message tcmu_abi_dbg_scsi_cmd_message;
}

unsafe extern "C" {
    fn tcmu_abi_log_connect(wanted: WantedFn, log: LogFn);
}

type WantedFn = extern "C" fn(c_int) -> c_int;
type LogFn = unsafe extern "C" fn(c_int, *mut c_void, *const c_char, c_int, *const c_char);

/// Installs the sink, once in a process; gives it back if there is one already.
pub fn install(sink: Box<dyn Sink>) -> Result<(), Box<dyn Sink>> {
    SINK.set(sink)?;
    // SAFETY: it keeps the pointers, which are valid for ever.
    unsafe { tcmu_abi_log_connect(c_wanted, c_log) };
    Ok(())
}

fn sink() -> Option<&'static dyn Sink> {
    SINK.get().map(Box::as_ref)
}

/// The level up to which lines are wanted.
pub fn level() -> Level {
    sink().map_or(Level::Info, Sink::level)
}

/// The directory of log files; empty if nobody has said.
pub fn directory() -> PathBuf {
    sink().map(Sink::directory).unwrap_or_default()
}

/// Whether lines of a level go anywhere.
pub fn wanted(level: Level) -> bool {
    sink().is_some_and(|sink| level <= sink.level())
}

/// Logs a line.
pub fn log(level: Level, device: Option<&Device>, function: &str, line: i32, text: &str) {
    if let Some(sink) = sink().filter(|sink| level <= sink.level()) {
        sink.log(level, device, function, line, text);
    }
}

/// For `log.c`.
extern "C" fn c_wanted(level: c_int) -> c_int {
    wanted(Level::from_number(level)).into()
}

/// For `log.c`.
unsafe extern "C" fn c_log(
    level: c_int,
    device: *mut c_void,
    function: *const c_char,
    line: c_int,
    text: *const c_char,
) {
    let string = |text: *const c_char| {
        // SAFETY: `log.c` and its callers pass text that ends with a NUL, or null.
        let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) });
        text.map(CStr::to_string_lossy).unwrap_or_default()
    };
    // SAFETY: C code passes a device that exists, or null.
    let device = unsafe { Device::from_ptr(device.cast()) };
    let text = string(text);
    log(Level::from_number(level), device, &string(function), line, text.trim_end_matches('\n'));
}

/// Sets how much is logged, 0 to 5; a negative number changes nothing.
#[unsafe(no_mangle)]
pub extern "C" fn tcmu_set_log_level(level: c_int) {
    if let Some(sink) = sink().filter(|_| level >= 0) {
        sink.set_level(Level::from_number(level));
    }
}

/// How much is logged, as a priority of syslog(3).
#[unsafe(no_mangle)]
pub extern "C" fn tcmu_get_log_level() -> c_uint {
    level().priority()
}

/// Writes the path of a file in the directory of logs to `path`, which has room for `PATH_MAX` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_make_absolute_logfile(
    path: *mut c_char,
    name: *const c_char,
) -> c_int {
    if path.is_null() || name.is_null() {
        return -libc::EINVAL;
    }
    let Some(sink) = sink() else { return -libc::EINVAL };
    // SAFETY: C code passes text.
    let name = OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes());
    let file = sink.directory().join(name);
    let bytes = file.as_os_str().as_bytes();
    if bytes.len() >= libc::PATH_MAX as usize || bytes.contains(&0) {
        return -libc::ENAMETOOLONG;
    }
    // SAFETY: C code passes room for so many bytes.
    unsafe {
        path.copy_from_nonoverlapping(bytes.as_ptr().cast(), bytes.len());
        path.add(bytes.len()).write(0);
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

    struct Lines;

    impl Sink for Lines {
        fn level(&self) -> Level {
            Level::Info
        }
        fn set_level(&self, _: Level) {}
        fn directory(&self) -> PathBuf {
            "/var/log/dir".into()
        }
        fn log(&self, level: Level, _: Option<&Device>, function: &str, line: i32, text: &str) {
            LINES.lock().unwrap().push(format!("{level:?} {function}:{line} {text}"));
        }
    }

    type Message = unsafe extern "C" fn(*mut c_void, *const c_char, c_int, *const c_char, ...);

    /// A function as C calls it.
    fn variadic(function: unsafe extern "C" fn()) -> Message {
        // SAFETY: both are pointers to functions, and C declares these ones so.
        unsafe { std::mem::transmute::<unsafe extern "C" fn(), Message>(function) }
    }

    #[test]
    fn variadic_messages_are_formatted_within_bounds_and_reach_the_sink() {
        let no_one = std::ptr::null_mut();
        // SAFETY: text, and arguments as the formats want them.
        unsafe { variadic(tcmu_err_message)(no_one, c"early".as_ptr(), 1, c"lost\n".as_ptr()) };
        assert!(install(Box::new(Lines)).is_ok());
        assert!(install(Box::new(Lines)).is_err());
        // SAFETY: as above.
        unsafe {
            let f = c"f".as_ptr();
            variadic(tcmu_err_message)(
                no_one,
                f,
                5,
                c"%s is %d, %.1f\n".as_ptr(),
                c"x".as_ptr(),
                7,
                0.5,
            );
            variadic(tcmu_dbg_message)(no_one, f, 6, c"too much".as_ptr());
            variadic(tcmu_info_message)(no_one, std::ptr::null(), 7, c"%06000d".as_ptr(), 1);
            variadic(tcmu_crit_message)(no_one, f, 8, std::ptr::null());
            *libc::__errno_location() = libc::ENOENT;
            variadic(tcmu_warn_message)(no_one, f, 9, c"%m".as_ptr());
            assert_eq!(*libc::__errno_location(), libc::ENOENT);
        }
        let lines = LINES.lock().unwrap();
        assert_eq!(lines[0], "Error f:5 x is 7, 0.5");
        assert_eq!(lines[1], format!("Info :7 {}", "0".repeat(4095)));
        assert_eq!(lines[2], "Warning f:9 No such file or directory");
        assert_eq!(lines.len(), 3);
        drop(lines);
        let mut path = [0u8; 4096];
        // SAFETY: there is room for a path.
        let named =
            unsafe { tcmu_make_absolute_logfile(path.as_mut_ptr().cast(), c"x.log".as_ptr()) };
        let path = CStr::from_bytes_until_nul(&path).unwrap();
        assert_eq!((named, path), (0, c"/var/log/dir/x.log"));
        assert_eq!(tcmu_get_log_level(), 6);
    }
}

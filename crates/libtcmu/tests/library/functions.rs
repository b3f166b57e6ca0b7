// SPDX-License-Identifier: Apache-2.0
//! What the functions of the two libraries answer to the same calls.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use libc::iovec;
use libloading::Library;

use super::{DEBIANS, ours};

/// Both, ours first.
fn both() -> [Library; 2] {
    // SAFETY: neither does more when it is loaded than to prepare its log.
    [ours(), DEBIANS.clone()].map(|path| unsafe { Library::new(path) }.unwrap())
}

/// A function of a library.
fn function<T: Copy>(library: &Library, name: &str) -> T {
    // SAFETY: the callers give the type that the headers declare.
    *unsafe { library.get::<T>(name.as_bytes()) }.unwrap()
}

/// What both answer.
#[track_caller]
fn same<T: std::fmt::Debug + PartialEq>(what: &str, ask: impl Fn(&Library) -> T) {
    let [a, b] = both();
    assert_eq!(ask(&a), ask(&b), "{what}: ours, and Debian's");
}

/// Opcodes of the groups that have a length (SPC-4 4.2.5.1), but for variable-length CDBs.
fn opcodes() -> impl Iterator<Item = u8> {
    (0..=0xbf).filter(|opcode| !(0x60..=0x7f).contains(opcode))
}

#[test]
fn fields_of_cdbs_are_the_same() {
    let cdb = |opcode: u8| -> [u8; 16] {
        std::array::from_fn(|i| if i == 0 { opcode } else { 0xf1u8.wrapping_mul(i as u8) })
    };
    same("length", |library| {
        let length: unsafe extern "C" fn(*mut u8) -> c_int =
            function(library, "tcmu_cdb_get_length");
        // SAFETY: CDBs of 16 bytes.
        opcodes().map(|opcode| unsafe { length(cdb(opcode).as_mut_ptr()) }).collect::<Vec<_>>()
    });
    same("address", |library| {
        let lba: unsafe extern "C" fn(*mut u8) -> u64 = function(library, "tcmu_cdb_get_lba");
        // SAFETY: as above.
        opcodes().map(|opcode| unsafe { lba(cdb(opcode).as_mut_ptr()) }).collect::<Vec<_>>()
    });
    same("transfer length", |library| {
        let length: unsafe extern "C" fn(*mut u8) -> u32 =
            function(library, "tcmu_cdb_get_xfer_length");
        // SAFETY: as above.
        opcodes().map(|opcode| unsafe { length(cdb(opcode).as_mut_ptr()) }).collect::<Vec<_>>()
    });
}

/// Memory in pieces.
struct Pieces {
    memory: Vec<Vec<u8>>,
    iovecs: Vec<iovec>,
}

impl Pieces {
    fn new(lens: &[usize]) -> Pieces {
        let fill = |(i, len): (usize, &usize)| vec![i as u8 + 1; *len];
        let mut memory: Vec<Vec<u8>> = lens.iter().enumerate().map(fill).collect();
        let piece = |bytes: &mut Vec<u8>| iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        let iovecs = memory.iter_mut().map(piece).collect();
        Pieces { memory, iovecs }
    }

    /// Where the pieces begin in their memory, and how long they are.
    fn places(&self) -> Vec<(usize, usize)> {
        let pairs = self.iovecs.iter().zip(&self.memory);
        let place = |(piece, bytes): (&iovec, &Vec<u8>)| {
            (piece.iov_base as usize - bytes.as_ptr() as usize, piece.iov_len)
        };
        pairs.map(place).collect()
    }
}

const SHAPES: [&[usize]; 5] = [&[8], &[1, 2, 3], &[4096, 0, 512], &[5, 5, 5, 5], &[0, 7]];

#[test]
fn lists_of_pieces_are_copied_compared_and_moved_in_the_same_way() {
    for shape in SHAPES {
        let total: usize = shape.iter().sum();
        for len in [0, 1, 3, 5, total / 2, total.saturating_sub(1), total] {
            let len = len.min(total);
            same(&format!("seek {len} of {shape:?}"), |library| {
                let seek: unsafe extern "C" fn(*mut iovec, usize) -> usize =
                    function(library, "tcmu_iovec_seek");
                let mut pieces = Pieces::new(shape);
                // SAFETY: there are so many bytes.
                let used = unsafe { seek(pieces.iovecs.as_mut_ptr(), len) };
                (used, pieces.places())
            });
            for more in [0, 3] {
                same(&format!("copy {len}+{more} of {shape:?}"), |library| {
                    type Copy =
                        unsafe extern "C" fn(*mut iovec, usize, *mut c_void, usize) -> usize;
                    type Back =
                        unsafe extern "C" fn(*mut c_void, usize, *mut iovec, usize) -> usize;
                    let copy: Copy = function(library, "tcmu_memcpy_into_iovec");
                    let back: Back = function(library, "tcmu_memcpy_from_iovec");
                    let mut source: Vec<u8> = (0..len + more).map(|i| i as u8).collect();
                    let mut target = vec![0xee_u8; len + more];
                    let (mut to, mut of) = (Pieces::new(shape), Pieces::new(shape));
                    let count = shape.len();
                    // SAFETY: all are as long as they are said to be.
                    let (into, from) = unsafe {
                        let into = copy(
                            to.iovecs.as_mut_ptr(),
                            count,
                            source.as_mut_ptr().cast(),
                            source.len(),
                        );
                        let target = target.as_mut_ptr().cast();
                        (into, back(target, len + more, of.iovecs.as_mut_ptr(), count))
                    };
                    ((into, to.places(), to.memory), (from, of.places(), target))
                });
            }
            same(&format!("compare {len} of {shape:?}"), |library| {
                type Compare = unsafe extern "C" fn(*mut c_void, *mut iovec, usize) -> i64;
                let compare: Compare = function(library, "tcmu_iovec_compare");
                let whole: Vec<u8> = Pieces::new(shape).memory.concat();
                let differing = |at: Option<usize>| {
                    let (mut other, mut pieces) = (whole.clone(), Pieces::new(shape));
                    if let Some(at) = at {
                        other[at] ^= 0x40;
                    }
                    // SAFETY: there are so many bytes.
                    unsafe { compare(other.as_mut_ptr().cast(), pieces.iovecs.as_mut_ptr(), len) }
                };
                (0..total.min(20)).map(Some).chain([None]).map(differing).collect::<Vec<_>>()
            });
        }
        same(&format!("zeros of {shape:?}"), |library| {
            type Zero = unsafe extern "C" fn(*mut iovec, usize);
            type Zeroed = unsafe extern "C" fn(*mut iovec, usize) -> bool;
            type Length = unsafe extern "C" fn(*mut iovec, usize) -> usize;
            let zero: Zero = function(library, "tcmu_iovec_zero");
            let zeroed: Zeroed = function(library, "tcmu_iovec_zeroed");
            let length: Length = function(library, "tcmu_iovec_length");
            let mut pieces = Pieces::new(shape);
            let (first, count) = (pieces.iovecs.as_mut_ptr(), shape.len());
            // SAFETY: there are so many pieces.
            let found = unsafe {
                let before = zeroed(first, count);
                zero(first, count);
                (before, zeroed(first, count), length(first, count))
            };
            (found, pieces.places(), pieces.memory)
        });
    }
}

#[test]
fn sense_is_made_in_the_same_way() {
    for (before, infos) in [(0, false), (0xff, false), (0, true), (0xff, true)] {
        same(&format!("sense in a buffer of {before:#x}, {infos}"), |library| {
            type Set = unsafe extern "C" fn(*mut u8, u8, u16) -> c_int;
            type Plain = unsafe extern "C" fn(*mut u8, u8, u16);
            let set: Set = function(library, "tcmu_sense_set_data");
            let plain: Plain = function(library, "__tcmu_sense_set_data");
            let info: unsafe extern "C" fn(*mut u8, u32) = function(library, "tcmu_sense_set_info");
            let specific: unsafe extern "C" fn(*mut u8, u16) =
                function(library, "tcmu_sense_set_key_specific_info");
            let mut sense = [before; 96];
            // SAFETY: the buffer has 96 bytes.
            let status = unsafe {
                if infos {
                    specific(sense.as_mut_ptr(), 0x0506);
                    info(sense.as_mut_ptr(), 0x0102_0304);
                }
                plain(sense.as_mut_ptr(), 3, 0x1100);
                let first = sense;
                (first, set(sense.as_mut_ptr(), 5, 0x2400))
            };
            (status, sense)
        });
    }
}

#[test]
fn files_are_read_and_written_in_the_same_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| CString::new(dir.path().join(name).to_str().unwrap()).unwrap();
    for (name, content) in [("n", "42\n"), ("negative", "-7\n"), ("text", "a b\n"), ("empty", "")] {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    for name in ["n", "negative", "text", "empty", "none"] {
        same(&format!("text of {name}"), |library| {
            let get: unsafe extern "C" fn(*const c_char) -> *mut c_char =
                function(library, "tcmu_cfgfs_get_str");
            // SAFETY: a path; what is returned is malloc'ed, or null.
            unsafe {
                let text = get(path(name).as_ptr());
                let copy = (!text.is_null()).then(|| CStr::from_ptr(text).to_owned());
                libc::free(text.cast());
                copy
            }
        });
    }
    for name in ["n", "negative", "none"] {
        same(&format!("number of {name}"), |library| {
            let get: unsafe extern "C" fn(*const c_char) -> c_int =
                function(library, "tcmu_cfgfs_get_int");
            // SAFETY: a path.
            unsafe { get(path(name).as_ptr()) }
        });
    }
    for name in ["to", "none/to"] {
        same(&format!("write {name}"), |library| {
            type SetText = unsafe extern "C" fn(*const c_char, *const c_char, c_int) -> c_int;
            let text: SetText = function(library, "tcmu_cfgfs_set_str");
            let number: unsafe extern "C" fn(*const c_char, u32) -> c_int =
                function(library, "tcmu_cfgfs_set_u32");
            let file = dir.path().join("to");
            std::fs::write(&file, "").unwrap();
            // SAFETY: a path, and so many bytes.
            let results = unsafe {
                let first = text(path(name).as_ptr(), c"abc".as_ptr(), 3);
                let between = std::fs::read(&file).unwrap();
                std::fs::write(&file, "").unwrap();
                (first, between, number(path(name).as_ptr(), u32::MAX))
            };
            // Debian's writes the NUL, too.
            (results, std::fs::read_to_string(&file).unwrap().trim_end_matches('\0').to_owned())
        });
    }
}

#[test]
fn levels_names_and_times_are_the_same() {
    same("levels", |library| {
        let set: unsafe extern "C" fn(c_int) = function(library, "tcmu_set_log_level");
        let get: unsafe extern "C" fn() -> u32 = function(library, "tcmu_get_log_level");
        let level = |n: c_int| {
            // SAFETY: numbers.
            unsafe {
                set(n);
                get()
            }
        };
        // SAFETY: nothing is passed.
        let first = unsafe { get() };
        let levels: Vec<u32> = (-1..=6).map(level).collect();
        // What is not asked of it is not logged.
        level(0);
        (first, levels)
    });
    same("shape of a time", |library| {
        let now: unsafe extern "C" fn(*mut c_char) -> c_int = function(library, "time_string_now");
        let mut buffer = [0u8; 64];
        // SAFETY: there is room.
        let result = unsafe { now(buffer.as_mut_ptr().cast()) };
        let shape = |b: &u8| if b.is_ascii_digit() { b'0' } else { *b };
        let text = CStr::from_bytes_until_nul(&buffer).unwrap();
        (result, text.to_bytes().iter().map(shape).collect::<Vec<_>>())
    });
    same("copy", |library| {
        let copy: unsafe extern "C" fn(*mut c_char, *const c_char, usize) -> usize =
            function(library, "strlcpy");
        [0, 1, 3, 6, 7, 9].map(|size| {
            let mut buffer = [b'x'; 10];
            // SAFETY: there is more room than that.
            let len = unsafe { copy(buffer.as_mut_ptr().cast(), c"abcdef".as_ptr(), size) };
            (len, buffer)
        })
    });
    same("name of a thread", |library| {
        let set: unsafe extern "C" fn(*const c_char, *mut c_void) =
            function(library, "tcmu_set_thread_name");
        // SAFETY: text; what is no device is asked for by no name.
        let named = || unsafe {
            set(c"a-name".as_ptr(), ptr::null_mut());
            std::fs::read_to_string("/proc/thread-self/comm").unwrap()
        };
        std::thread::scope(|scope| scope.spawn(named).join().unwrap())
    });
}

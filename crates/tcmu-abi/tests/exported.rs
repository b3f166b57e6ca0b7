// SPDX-License-Identifier: Apache-2.0
//! This test uses `unsafe` to look symbols up in its own program, which is linked as `lib.rs` says
//! (`build.rs`).
#![allow(unsafe_code)]

use libloading::os::unix::Library;

#[test]
fn a_program_exports_all_functions_to_what_it_loads() {
    assert_eq!(tcmu_abi::keep(), tcmu_abi::symbols().count());
    let program = Library::this();
    for symbol in tcmu_abi::symbols() {
        // SAFETY: it is looked up, and not called.
        let found = unsafe { program.get::<*const ()>(symbol.as_bytes()) };
        assert!(found.is_ok(), "{symbol} is not exported");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Gives the shared library the name that programs look for. It is never unloaded: threads of it may
//! run on.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for argument in ["-soname,libtcmu.so.2", "-z,nodelete"] {
        println!("cargo:rustc-cdylib-link-arg=-Wl,{argument}");
    }
}

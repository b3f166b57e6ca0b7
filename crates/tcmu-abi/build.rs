// SPDX-License-Identifier: Apache-2.0
//! Compiles the functions that are variadic, which stable Rust cannot define, and links the tests as
//! programs that export the functions.

fn main() {
    println!("cargo:rerun-if-changed=src/exports/log.c");
    println!("cargo:rerun-if-changed=symbols.txt");
    cc::Build::new()
        .file("src/exports/log.c")
        .flag("-std=gnu11")
        .extra_warnings(true)
        .compile("tcmu_abi_log");
    for symbol in include_str!("symbols.txt").lines() {
        println!("cargo:rustc-link-arg-tests=-Wl,--export-dynamic-symbol={symbol}");
    }
}

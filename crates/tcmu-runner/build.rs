// SPDX-License-Identifier: Apache-2.0
//! Exports what plugins look up in the program that loads them.

const SYMBOLS: [&str; 2] =
    [include_str!("../tcmu-abi/symbols.txt"), include_str!("../tcmu-plugin/symbols.txt")];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for symbol in SYMBOLS.iter().flat_map(|symbols| symbols.lines()) {
        println!("cargo::rustc-link-arg=-Wl,--export-dynamic-symbol={symbol}");
    }
}

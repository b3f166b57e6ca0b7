// SPDX-License-Identifier: Apache-2.0
//! Lets tests load plugins: exports what these look up in the program that loads them.

const SYMBOLS: [&str; 2] = [include_str!("../tcmu-abi/symbols.txt"), include_str!("symbols.txt")];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for symbol in SYMBOLS.iter().flat_map(|symbols| symbols.lines()) {
        for target in ["tests", "bins"] {
            println!("cargo::rustc-link-arg-{target}=-Wl,--export-dynamic-symbol={symbol}");
        }
    }
}

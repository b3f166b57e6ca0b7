// SPDX-License-Identifier: Apache-2.0
//! Criterion's benchmarks of the ring and the command path, on this machine, with the simulated
//! kernel; their results as a table.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::find_all;
use crate::bench::sections;
use crate::run;

/// Runs all benchmarks of the workspace and writes the table.
pub(crate) fn main() -> Result<ExitCode> {
    run::run(&mut run::cargo(["bench", "--workspace", "--benches", "--", "--noplot"]))?;
    let dir = run::target_dir()?.join("criterion");
    let mut files = Vec::new();
    find_all(&dir, "new/estimates.json", &mut files);
    files.sort();
    let mut table =
        String::from("| benchmark | median | elements per second |\n| --- | --- | --- |\n");
    for file in &files {
        let text = std::fs::read_to_string(file)?;
        let about = file.with_file_name("benchmark.json");
        let about = std::fs::read_to_string(about).unwrap_or_default();
        table += &row(&text, &about).with_context(|| format!("{}", file.display()))?;
    }
    if files.is_empty() {
        bail!("no benchmark left a result in {}", dir.display());
    }
    println!("\n{table}");
    write(&table)?;
    println!("written to BENCHMARKS.md");
    Ok(ExitCode::SUCCESS)
}

fn write(table: &str) -> Result<()> {
    let text = format!(
        "## Natively, on the simulated kernel\n\nWritten by `cargo xtask bench tcmu --native`.\n\n{table}"
    );
    sections::replace("native", &text)
}

/// One row, of criterion's estimates.json and benchmark.json.
fn row(estimates: &str, about: &str) -> Result<String> {
    let estimates: serde_json::Value = serde_json::from_str(estimates)?;
    let about: serde_json::Value = serde_json::from_str(about).unwrap_or_default();
    let ns = estimates["median"]["point_estimate"].as_f64().context("no median")?;
    let name = about["full_id"].as_str().unwrap_or("unnamed");
    let elements = about["throughput"]["Elements"].as_f64();
    let rate = elements.map_or("-".into(), |n| format!("{:.0}", n * 1e9 / ns));
    let mut out = String::new();
    let _ = writeln!(out, "| {name} | {:.3} us | {rate} |", ns / 1e3);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_of_criterion_becomes_a_row() {
        let estimates = r#"{"median": {"point_estimate": 2500.0}}"#;
        let about = r#"{"full_id": "ring/read 4k", "throughput": {"Elements": 32}}"#;
        let want = "| ring/read 4k | 2.500 us | 12800000 |\n";
        assert_eq!(row(estimates, about).unwrap(), want);
        assert!(row("{}", about).is_err());
    }
}

//! To come with the next steps.
use std::process::ExitCode;
#[derive(clap::Args)]
pub(crate) struct Options {}
pub(crate) fn main(_: &Options) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not there yet")
}

//! A logical unit on a backstore in memory: what each command does, and how it fails.

mod block_io;
mod compare;
mod control;
mod copy;
mod hostile;
mod identity;
mod provisioning;
mod support;

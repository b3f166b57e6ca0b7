//! What people do with the workspace.

fn main() {}

//! The command line: one file a command, nothing clever.
fn main() {}

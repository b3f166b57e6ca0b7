//! A stand-in for the kernel's side of TCM-User, for tests and benchmarks.

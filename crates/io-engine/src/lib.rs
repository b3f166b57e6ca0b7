//! Asynchronous file I/O for one thread: io_uring, or a bounded pool of threads.

//! mq: bench.

//! mq: memory.

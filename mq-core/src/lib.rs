//! mq: core.

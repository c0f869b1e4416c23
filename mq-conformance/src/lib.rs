//! mq: conformance.

//! What every backend of mq must pass: scenarios, a history checker, and a proxy that makes faults.

pub mod history;
pub mod proxy;

//! What the project's tasks share, and what tests and torture runs may reuse: above all
//! [`brokers`], which starts, finds and breaks the real brokers.

pub mod brokers;
pub mod clock;
mod error;
pub mod shell;

pub use error::{Context, Error, Result};

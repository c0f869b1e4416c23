//! What every backend of mq must pass: scenarios, a history checker, and a proxy that makes faults.
//!
//! An author of a backend writes a test binary of about a dozen lines, see [`Harness`]. Scenarios are chosen by
//! what the backend declares; what it does not declare, it must refuse with `Unsupported` before any I/O, and the
//! harness must list it.

mod context;
pub mod crash;
mod harness;
pub mod history;
mod outcome;
pub mod proxy;
mod refusal;
mod report;
mod runner;
pub mod saboteur;
mod scenario;
mod scenarios;
pub mod secrets;
pub mod torture;
mod turn;

pub use context::Ctx;
pub use harness::{Harness, Patience, Setup};
pub use outcome::{Failed, Outcome};
pub use report::{Report, Status};
pub use runner::{run, run_one};
pub use scenario::{Hooks, Scenario};
pub use scenarios::all as scenarios;

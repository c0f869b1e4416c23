//! Real brokers for tests: started natively or in Docker, found by a state file, broken on purpose.
//!
//! [`up`] and [`down`] are what `cargo xtask brokers` calls. Tests read [`Store`]; a torture run
//! breaks nodes with [`Control`], which touches only processes that the state file names. Everything
//! here blocks its thread, and ends by a deadline.

mod catalogue;
mod control;
mod debian;
mod docker;
mod install;
mod kafka;
mod kafka_config;
mod lifecycle;
mod native;
mod ports;
pub mod probe;
pub mod process;
mod rabbit;
pub mod state;
mod tls;
mod user;

pub use catalogue::{Name, choose};
pub use control::Control;
pub use lifecycle::{Up, choose_mode, down, up};
pub use process::Life;
pub use state::{Broker, Mode, Node, State, Store};

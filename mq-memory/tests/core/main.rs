//! What the core promises whatever goes wrong below it, on the virtual clock.
#![allow(missing_docs)]

mod bulk;
mod common;
mod dead;
mod half;
mod reconnect;
mod run;
mod send;
mod settle;
mod stuck;
mod topology;
mod transaction;
mod workers;

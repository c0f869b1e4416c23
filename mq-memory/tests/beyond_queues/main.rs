//! Topics, transactions, half messages and faults of the memory broker, through the driver traits, on a virtual
//! clock.

mod faults;
mod half;
mod half_log;
mod support;
mod topics;
mod transactions;

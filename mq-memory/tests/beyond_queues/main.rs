//! Topics, transactions, half messages and faults of the memory broker, through the driver traits, on a virtual
//! clock.

mod faults;
mod support;
mod topics;
mod transactions;

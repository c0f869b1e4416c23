//! What more than one backend lacks, done over the driver roles alone: durable, and owned by one process at a time.

pub(crate) mod base;
mod deliver;
mod drain;
mod duty;
pub(crate) mod envelope;
pub(crate) mod exchange;
pub(crate) mod half;
mod outlets;
mod own;
mod undelivered;
mod unpack;

pub(crate) use base::Base;
pub(crate) use outlets::is_dead;

//! The core's emulations, proved over a memory broker whose native ability is switched off.
#![allow(missing_docs)]

mod common;
mod consumer;
mod crash;
mod cut;
mod exchange;
mod faults;
mod half;
mod layers;
mod unpack;

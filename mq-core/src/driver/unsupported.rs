//! The role that does not exist.

use std::time::Duration;

use super::{
    AckNow, Arrival, Batch, Check, CheckToken, Consumer, Control, Decided, Exchange, Flushed, Half, HalfId,
    HalfLog, HalfRecord, LogBatch, Producer, Settle, Shard, Step, Stepped, Tag, Target, Transaction, Verdict,
};
use crate::error::Result;
use crate::message::Message;

/// Stands for a role that a backend lacks. It has no value, so nothing of it can ever be called: opening it is
/// refused, and its capability says `Unsupported`.
#[derive(Clone, Copy, Debug)]
pub enum Unsupported {}

impl Producer for Unsupported {
    async fn send_batch(&self, _: &mut Batch) -> Result<()> {
        match *self {}
    }
    async fn close(&self) -> Result<()> {
        match *self {}
    }
}

impl Exchange for Unsupported {
    async fn publish_batch(&self, _: &mut Batch) -> Result<()> {
        match *self {}
    }
    async fn close(&self) -> Result<()> {
        match *self {}
    }
}

impl Consumer for Unsupported {
    async fn receive(&self, _: &mut Vec<Arrival>, _: usize, _: Duration) -> Result<()> {
        match *self {}
    }
    fn ack(&self, _: &[Tag]) -> AckNow {
        match *self {}
    }
    async fn flush(&self) -> Result<Flushed> {
        match *self {}
    }
    async fn settle(&self, _: Tag, _: Settle) -> Result<()> {
        match *self {}
    }
    async fn control(&self, _: Control) -> Result<()> {
        match *self {}
    }
    async fn close(&self) -> Result<()> {
        match *self {}
    }
}

impl Transaction for Unsupported {
    async fn send(&mut self, _: &Target, _: Message) -> Result<()> {
        match *self {}
    }
    async fn attach(&mut self, _: &[Tag]) -> Result<()> {
        match *self {}
    }
    async fn commit(self) -> Result<()> {
        match self {}
    }
    async fn rollback(self) -> Result<()> {
        match self {}
    }
    fn abandon(self) {
        match self {}
    }
}

impl Half for Unsupported {
    async fn prepare(&self, _: &Target, _: Message, _: Duration) -> Result<HalfId> {
        match *self {}
    }
    async fn decide(&self, _: &HalfId, _: Verdict, _: Option<CheckToken>) -> Result<Decided> {
        match *self {}
    }
    async fn checks(&self, _: usize, _: Duration) -> Result<Vec<Check>> {
        match *self {}
    }
}

impl HalfLog for Unsupported {
    async fn append(&self, _: HalfRecord) -> Result<()> {
        match *self {}
    }
    async fn next(&self, _: usize, _: Duration) -> Result<LogBatch> {
        match *self {}
    }
    async fn step(&self, _: Shard, _: Step) -> Result<Stepped> {
        match *self {}
    }
}

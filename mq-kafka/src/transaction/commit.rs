//! One Kafka transaction, from begin to its outcome. Blocks.

use std::time::{Duration, Instant};

use mq_core::driver::Target;
use mq_core::{Error, Fate, Kind, Message, Result, Timestamp};
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer as _;

use super::Work;
use super::end::{self, Decision};
use super::pool::{Turn, TxProducer};
use crate::connection::Link;
use crate::consumer::Staged;
use crate::{convert, delay, error};

/// How long all of it may take; the broker undoes it after 10 s by itself.
const WHOLE: Duration = Duration::from_secs(9);
/// One native call.
const CALL: Duration = Duration::from_secs(5);

/// Why a transaction did not happen.
enum Failed {
    /// None of it is visible; the producer is good.
    Undone(Error),
    /// None of it is visible; the producer is not to be used again.
    Spoilt(Error),
    /// The commit was under way.
    Unknown(Error),
}

/// Commits all of it; the turn ends with it.
pub(crate) fn run(link: &Link, work: Work, _turn: Turn) -> Result<()> {
    let deadline = Instant::now() + WHOLE;
    if work.is_empty() {
        return Ok(());
    }
    let producer = match link.pool.lease(link) {
        Ok(producer) => producer,
        Err(failed) => {
            work.give_back();
            return Err(aborted(failed));
        }
    };
    let staged = match stage(&work, deadline) {
        Ok(staged) => staged,
        Err(failed) => {
            link.pool.keep(producer);
            work.give_back();
            return Err(failed);
        }
    };
    // What an attempt that was not begun has left.
    drop(producer.firsts());
    let outcome = attempt(link, &producer, &work, &staged, deadline);
    finish(link, producer, &work, staged, outcome)
}

/// Takes the partitions of all acks: from here to the outcome nothing else is committed for them.
fn stage(work: &Work, deadline: Instant) -> Result<Vec<Staged>> {
    let mut staged = Vec::with_capacity(work.acks.len());
    for acks in work.acks.values() {
        staged.push(acks.shared.stage(&acks.tags, acks.guard, deadline)?);
    }
    Ok(staged)
}

fn attempt(
    link: &Link,
    producer: &TxProducer,
    work: &Work,
    staged: &[Staged],
    deadline: Instant,
) -> std::result::Result<(), Failed> {
    let native = producer.native();
    native.begin_transaction().map_err(|e| Failed::Spoilt(error::of("the transaction was not begun", e)))?;
    let filled = fill(link, producer, &work.sends, deadline).and_then(|()| offsets(producer, staged));
    if let Err(failed) = filled {
        return Err(undo(producer, failed, deadline));
    }
    loop {
        match native.commit_transaction(CALL) {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(e)) if e.is_retriable() && Instant::now() < deadline => {}
            Err(KafkaError::Transaction(e)) if e.txn_requires_abort() => {
                return Err(match undo(producer, KafkaError::Transaction(e), deadline) {
                    // The commit may have been on its way, and an abort that fails does not tell that it was not done.
                    Failed::Spoilt(why) => Failed::Unknown(why),
                    told => told,
                });
            }
            Err(failed) => return Err(Failed::Unknown(error::of("the commit was not answered", failed))),
        }
    }
}

fn fill(
    link: &Link,
    producer: &TxProducer,
    sends: &[(Target, Message)],
    deadline: Instant,
) -> std::result::Result<(), KafkaError> {
    let now = Timestamp::now();
    for (target, message) in sends {
        let level =
            message.due().filter(|due| *due > now).map(|due| delay::topic(link, delay::first(due, now)));
        let record = match &level {
            Some(level) => convert::delay(level, message, target, ()),
            None => convert::record(&target.name, message, ()),
        };
        producer.native().send(record).map_err(|(failed, _)| failed)?;
    }
    producer.answered(deadline)
}

fn offsets(producer: &TxProducer, staged: &[Staged]) -> std::result::Result<(), KafkaError> {
    for one in staged {
        producer.send_acks(one, CALL)?;
    }
    Ok(())
}

/// Aborts; a producer whose abort is not answered is spoilt.
fn undo(producer: &TxProducer, failed: KafkaError, deadline: Instant) -> Failed {
    let why = error::of("the transaction was undone", failed);
    if producer.is_stuck() {
        return Failed::Spoilt(why);
    }
    loop {
        match producer.native().abort_transaction(CALL) {
            Ok(()) => {
                // The reports of what was purged.
                drop(producer.answered(Instant::now() + CALL));
                return Failed::Undone(why);
            }
            Err(KafkaError::Transaction(e)) if e.is_retriable() && Instant::now() < deadline => {}
            Err(_) => return Failed::Spoilt(why),
        }
    }
}

fn finish(
    link: &Link,
    producer: TxProducer,
    work: &Work,
    staged: Vec<Staged>,
    outcome: std::result::Result<(), Failed>,
) -> Result<()> {
    let firsts = producer.firsts();
    match outcome {
        Ok(()) => match end::reach(link, producer, firsts, &staged, Some(Decision::Commit)) {
            Ok(producer) => {
                link.pool.keep(producer);
                staged.into_iter().for_each(Staged::applied);
                Ok(())
            }
            Err(why) => unknown(work, staged, why),
        },
        Err(Failed::Undone(why)) => {
            match end::reach(link, producer, firsts, &staged, Some(Decision::Abort)) {
                Ok(producer) => link.pool.keep(producer),
                Err(failed) => given_up(&failed),
            }
            drop(staged);
            work.give_back();
            Err(aborted(why))
        }
        Err(Failed::Spoilt(why)) => {
            let renewed = producer.renewed(link);
            match renewed.and_then(|fresh| end::reach(link, fresh, firsts, &staged, Some(Decision::Abort))) {
                Ok(fresh) => link.pool.keep(fresh),
                Err(failed) => given_up(&failed),
            }
            drop(staged);
            work.give_back();
            Err(aborted(why))
        }
        Err(Failed::Unknown(why)) => {
            // The successor is ready when the broker has finished the transaction, one way or the other: then the
            // stored offsets tell whether the acks count.
            let renewed = producer.renewed(link);
            match renewed.and_then(|fresh| end::reach(link, fresh, firsts, &staged, None)) {
                Ok(fresh) => link.pool.keep(fresh),
                Err(failed) => given_up(&failed),
            }
            unknown(work, staged, why)
        }
    }
}

/// Asks the broker what became of the acks.
fn unknown(work: &Work, staged: Vec<Staged>, why: Error) -> Result<()> {
    for (one, acks) in staged.into_iter().zip(work.acks.values()) {
        match one.is_stored() {
            Some(true) => one.applied(),
            Some(false) => {
                drop(one);
                acks.give_back();
            }
            None => one.give_up(),
        }
    }
    Err(why.with_fate(Fate::Unknown))
}

fn given_up(failed: &Error) {
    tracing::warn!(target: "mq_kafka", error = %failed, "a transactional producer was given up");
}

fn aborted(why: Error) -> Error {
    let text = format!("none of the transaction is visible: {}", why.message());
    Error::new(Kind::TransactionAborted, text)
        .with_status(why.status())
        .with_backend(error::BACKEND)
        .with_source(why)
}

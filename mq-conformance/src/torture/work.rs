//! Producers and consumers of a run.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mq_core::driver::{Flushed, Receipt};
use mq_core::{Client, Confirmation, Consumer, Delivery, Error, Kind, Message, Result};
use tokio::time::Instant;

use super::run::Run;
use crate::history::{Delivery as Seen, End, Send, Settled};

/// Sends of one producer whose answers are waited for, at most.
pub(super) const FLYING: usize = 256;
/// Acks between two flushes that are waited for.
const FLUSH_EVERY: u64 = 256;

/// Sends its part of the values in order, each handed over when the window has room.
pub(super) async fn produce(run: Arc<Run>, client: Client, number: u32) -> Result<()> {
    let queue = client.queue(super::QUEUE);
    let mut producer = queue.producer().build().await?;
    let gone = AtomicBool::new(false);
    let parts = u64::from(run.plan.producers);
    let values = (0..run.plan.messages).filter(|v| v % parts == u64::from(number));
    let mut flying = FuturesUnordered::new();
    let mut gate = run.gate.subscribe();
    for value in values {
        let number_of_send = run.begun.fetch_add(1, Ordering::Relaxed);
        loop {
            let open = *gate.borrow_and_update() > number_of_send;
            if open && flying.len() < FLYING {
                break;
            }
            tokio::select! {
                Some(()) = flying.next() => {}
                _ = gate.changed(), if !open => {}
            }
        }
        if gone.swap(false, Ordering::Relaxed) {
            let mut opening = pin!(again(&run, || queue.producer().build()));
            producer = loop {
                tokio::select! {
                    opened = &mut opening => break opened?,
                    Some(()) = flying.next() => {}
                }
            };
        }
        let key = value % 64;
        let send = run.recorder.send(Send::new(number, run.place, value, run.recorder.now()).key(key));
        let mut handing = pin!(producer.hand_over(message(value, key, run.plan.body)));
        // Confirms are taken meanwhile: one that was lost is sent again only while somebody waits for it.
        let handed = loop {
            tokio::select! {
                biased;
                handed = &mut handing => break handed,
                Some(()) = flying.next() => {}
            }
        };
        flying.push(confirm(&run, send, handed, &gone));
    }
    while flying.next().await.is_some() {}
    drop(flying);
    // Everything has its answer; a close that fails changes none of them.
    let _ = producer.close().await;
    Ok(())
}

/// A deleted queue ends what was opened on it; another one is opened when it has been declared again, and the broker
/// is there: the next fault may come meanwhile.
async fn again<T, Fut: Future<Output = Result<T>>>(run: &Run, open: impl Fn() -> Fut) -> Result<T> {
    let until = Instant::now() + run.plan.patience.fail_over * 3;
    let passing = |e: &Error| matches!(e.kind(), Kind::NotFound | Kind::Timeout | Kind::Disconnected);
    run.patiently(until, passing, open).await
}

async fn confirm(run: &Run, send: usize, handed: Result<Confirmation>, gone: &AtomicBool) {
    let result: Result<Receipt> = match handed {
        Ok(confirmation) => confirmation.await,
        Err(error) => Err(error),
    };
    let end = End::of(&result);
    if result.as_ref().is_err_and(|e| e.kind() == Kind::NotFound) {
        gone.store(true, Ordering::Relaxed);
    }
    run.recorder.sent(send, end, result.ok().and_then(|r| r.position));
    if end == End::Ok {
        run.confirmed.send_modify(|n| *n += 1);
    }
    run.ended.send_modify(|n| *n += 1);
}

pub(super) fn message(value: u64, key: u64, size: usize) -> Message {
    let mut body = value.to_be_bytes().to_vec();
    body.resize(size.max(24), u8::try_from(value % 251).unwrap_or(0));
    Message::new(body).with_key(key.to_be_bytes())
}

/// The value, if the body is as it was sent.
pub(super) fn value(message: &Message) -> Option<u64> {
    let (head, rest) = message.payload().split_at_checked(8)?;
    let value = u64::from_be_bytes(head.try_into().ok()?);
    rest.iter().all(|b| u64::from(*b) == value % 251).then_some(value)
}

/// Receives until the run is drained; acknowledges most of it and gives some of it back once.
pub(super) async fn consume(run: Arc<Run>, client: Client, number: u32) -> Result<()> {
    let queue = client.queue(super::QUEUE);
    let mut consumer = queue.consumer().open().await?;
    let mut since_flush = 0;
    while !run.drained.load(Ordering::Acquire) {
        let next = match consumer.recv_for(run.plan.patience.tick).await {
            Err(e) if e.kind() == Kind::NotFound => {
                run.recorder.shift(Some(number));
                consumer = again(&run, || queue.consumer().open()).await?;
                run.reopened.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            next => next?,
        };
        match next {
            Some(delivery) => {
                handle(&run, number, delivery).await;
                since_flush += 1;
            }
            None if since_flush == 0 => continue,
            None => since_flush = FLUSH_EVERY,
        }
        if since_flush >= FLUSH_EVERY {
            since_flush = 0;
            flush(&run, number, &consumer).await;
        }
    }
    run.recorder.shift(Some(number));
    consumer.close().await
}

async fn handle(run: &Run, consumer: u32, delivery: Delivery) {
    // A body that was changed is a value that nobody sent.
    let value = value(&delivery).unwrap_or(u64::MAX);
    let index = run.recorder.delivered(Seen::new(consumer, run.place, value, run.recorder.now()));
    run.count_delivery();
    let back = delivery.attempt() == 1 && value % run.plan.give_back == 7;
    run.recorder.settled(index, if back { Settled::Back } else { Settled::Ack });
    let settled = if back {
        let settled = delivery.retry_after(std::time::Duration::ZERO, "given back").await;
        // What failed may be the copy or the ack after it.
        run.recorder.gave_back(index, if settled.is_ok() { End::Ok } else { End::Unknown });
        settled
    } else {
        delivery.ack()
    };
    if let Err(unsettled) = settled {
        run.recorder.unsettled(index);
        // It is void and comes again, or its consumer gives it back; either way it is not settled twice.
        drop(unsettled);
    }
}

/// Where the broker confirms acks, they are durable now; elsewhere after the ack bound.
async fn flush(run: &Run, number: u32, consumer: &Consumer) {
    let now = run.recorder.now();
    if let Ok(Flushed::Confirmed) = consumer.flush_acks().await {
        run.recorder.durable(number, now);
    }
}

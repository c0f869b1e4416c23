//! lapin as most people write it: each publish awaited until it is on the socket, each delivery acknowledged by
//! itself, neither returned messages nor ids looked after.

#![expect(clippy::disallowed_methods, reason = "it is what most people write")]

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicPublishOptions};

use super::raw::Raw;
use crate::broker::{Sample, Watch, since};

pub(super) async fn publish(raw: &Raw, queue: &str, n: u64, window: usize, body: &Bytes) -> Sample {
    let (channel, queue, body) = (raw.confirming().await, queue.to_owned(), body.clone());
    let watch = Watch::start();
    let sending = tokio::spawn(async move {
        let mut open = VecDeque::with_capacity(window);
        let mut late = Vec::new();
        for _ in 0..n {
            let properties = BasicProperties::default().with_delivery_mode(2);
            let start = Instant::now();
            let options = BasicPublishOptions::default();
            let handed =
                channel.basic_publish("".into(), queue.as_str().into(), options, &body, properties).await;
            open.push_back((start, handed.expect("the channel lives")));
            if open.len() == window {
                let (start, confirm) = open.pop_front().expect("the window is full");
                confirm.await.expect("the channel lives");
                late.push(since(start));
            }
        }
        for (start, confirm) in open {
            confirm.await.expect("the channel lives");
            late.push(since(start));
        }
        channel.close(200, "bye".into()).await.expect("the channel closes");
        late
    });
    let late = sending.await.expect("the publisher ends");
    watch.stop(n, late)
}

pub(super) async fn consume(raw: &Raw, queue: &str, n: u64, prefetch: u16) -> Sample {
    let (channel, mut consumer) = raw.consumer(queue, prefetch, None).await;
    let mut watch = None;
    for _ in 0..n {
        let delivery = consumer.next().await.expect("a message comes").expect("the channel lives");
        watch.get_or_insert_with(Watch::start);
        delivery.ack(BasicAckOptions::default()).await.expect("the channel lives");
    }
    let sample = watch.unwrap_or_else(Watch::start).stop(n, Vec::new());
    channel.close(200, "bye".into()).await.expect("the channel closes");
    sample
}

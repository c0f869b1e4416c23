//! Receiving and acknowledging.

use super::*;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        what_is_acknowledged_out_of_order_stays_so_over_a_restart,
        a_requeued_message_comes_again,
        close_is_quick_with_deliveries_held,
        a_slow_consumer_is_paused_and_goes_on,
        a_death_is_counted_and_acks_survive_it,
        what_cannot_be_read_is_dead_lettered,
        what_is_stuck_for_too_long_goes_to_the_tail
    ]
}

async fn what_is_acknowledged_out_of_order_stays_so_over_a_restart() {
    let bed = Bed::new().await;
    let queue = bed.queue("ahead", 1).await;
    bed.texts(&Target::queue(&queue), 6).await;
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(6).await;
    let odd: Vec<_> = got.into_iter().filter(|d| d.tag.seq % 2 == 1).collect();
    inbox.ack(&odd).await;
    inbox.close().await;
    let mut inbox = bed.shared(&queue).await;
    let rest = inbox.take(3).await;
    assert_eq!(texts(&rest), ["0", "2", "4"]);
    inbox.nothing().await;
    inbox.ack(&rest).await;
    inbox.close().await;
    let mut inbox = bed.shared(&queue).await;
    inbox.nothing().await;
    inbox.close().await;
    bed.close().await;
}

async fn a_requeued_message_comes_again() {
    let bed = Bed::new().await;
    let queue = bed.queue("requeue", 1).await;
    bed.texts(&Target::queue(&queue), 3).await;
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(3).await;
    inbox.consumer.settle(got[1].tag, Settle::Requeue).await.unwrap();
    let again = inbox.take(1).await;
    assert_eq!(texts(&again), ["1"]);
    inbox.ack(&got).await;
    inbox.nothing().await;
    inbox.close().await;
    bed.close().await;
}

async fn close_is_quick_with_deliveries_held() {
    let bed = Bed::new().await;
    let queue = bed.queue("close", 4).await;
    bed.texts(&Target::queue(&queue), 20).await;
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(20).await;
    inbox.consumer.ack(&[got[3].tag]);
    let began = Instant::now();
    inbox.close().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let mut inbox = bed.shared(&queue).await;
    assert_eq!(inbox.take(19).await.len(), 19, "a close stores what was acknowledged");
    inbox.nothing().await;
    inbox.close().await;
    bed.close().await;
}

async fn a_slow_consumer_is_paused_and_goes_on() {
    let bed = Bed::new().await;
    let queue = bed.queue("slow", 2).await;
    bed.texts(&Target::queue(&queue), 300).await;
    let mut options = ConsumerOptions::new(Target::queue(&queue), Mode::Shared);
    options.prefetch = 10;
    let mut inbox = bed.consumer(options).await;
    let mut all = inbox.take(1).await;
    // Longer than the reader's patience.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    while all.len() < 300 {
        let got = inbox.take(1).await;
        inbox.consumer.ack(&[got[0].tag]);
        all.extend(got);
    }
    assert_eq!(sorted(&all), (0..300).collect::<Vec<_>>());
    inbox.close().await;
    bed.close().await;
}

async fn a_death_is_counted_and_acks_survive_it() {
    let bed = Bed::new().await;
    let queue = bed.queue("death", 1).await;
    bed.texts(&Target::queue(&queue), 2).await;
    run_victim(&queue).await;
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(1).await;
    assert_eq!((texts(&got), got[0].deaths), (vec!["0".to_owned()], 1));
    inbox.close().await;
    // A clean leave counts nothing, and the count stays.
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(1).await;
    assert_eq!(got[0].deaths, 1);
    inbox.ack(&got).await;
    bed.texts(&Target::queue(&queue), 1).await;
    let fresh = inbox.take(1).await;
    inbox.nothing().await;
    inbox.ack(&fresh).await;
    inbox.close().await;
    bed.close().await;
}

/// T23: the native client panics on the name of such a header.
async fn what_cannot_be_read_is_dead_lettered() {
    let bed = Bed::new().await;
    let queue = bed.queue("odd", 1).await;
    wire::produce(&hosts()[0], &queue, b"odd", (&[0xff, 0xfe], b"x")).await;
    bed.texts(&Target::queue(&queue), 1).await;
    let url = format!("kafka://{}", hosts().join(","));
    let client = Registry::new().with(mq_kafka::backend()).connect(&url).await.unwrap();
    let mut consumer = client.queue(&queue).consumer().open().await.unwrap();
    let wait = Duration::from_secs(20);
    let delivery = consumer.recv_for(wait).await.unwrap().expect("the good message");
    assert_eq!(delivery.to_str().unwrap(), "0", "the odd one is not delivered");
    delivery.ack().unwrap();
    let dead = format!("{queue}.dlq");
    let found = async {
        loop {
            match client.queue(&dead).consumer().open().await {
                Ok(consumer) => break consumer,
                Err(e) => assert_eq!(e.kind(), Kind::NotFound),
            }
            tokio::task::yield_now().await;
        }
    };
    let mut dead = tokio::time::timeout(wait, found).await.expect("its dead-letter queue");
    let letter = dead.recv_for(wait).await.unwrap().expect("the odd one");
    assert_eq!((letter.to_str().unwrap(), letter.headers().iter().count()), ("odd", 0));
    assert_eq!(letter.trail().and_then(|t| t.reason), Some(DeathReason::Malformed));
    letter.ack().unwrap();
    dead.close().await.unwrap();
    consumer.close().await.unwrap();
    client.close().await.unwrap();
    bed.close().await;
}

/// What is acknowledged beyond the first message does not fit beside the stored offset.
async fn what_is_stuck_for_too_long_goes_to_the_tail() {
    const ALL: usize = 30_000;
    let bed = Bed::new().await;
    let queue = bed.queue("stuck", 1).await;
    bed.texts(&Target::queue(&queue), ALL).await;
    let mut options = ConsumerOptions::new(Target::queue(&queue), Mode::Shared);
    options.prefetch = 40_000;
    let mut inbox = bed.consumer(options).await;
    let got = inbox.take(ALL).await;
    let is_held = |seq: usize| seq == 0 || (seq >= 25_000 && seq.is_multiple_of(3));
    let (held, done): (Vec<_>, Vec<_>) = got.into_iter().enumerate().partition(|(n, _)| is_held(*n));
    let tags: Vec<_> = done.iter().map(|(_, d)| d.tag).collect();
    inbox.consumer.ack(&tags);
    inbox.consumer.flush().await.unwrap();
    let copy = inbox.take(1).await;
    assert_eq!(texts(&copy), ["0"]);
    assert_eq!(copy[0].message.id(), held[0].1.message.id());
    // It is not that delivery's any more.
    inbox.consumer.ack(&[held[0].1.tag]);
    inbox.some(0, Duration::from_secs(5)).await;
    assert!(inbox.changes.iter().any(|c| matches!(c, Arrival::AckLost(t) if t == &[held[0].1.tag])));
    inbox.ack(&copy).await;
    inbox.close().await;
    let mut inbox = bed.shared(&queue).await;
    let again = inbox.take(held.len() - 1).await;
    let rest: Vec<u64> = held.iter().skip(1).map(|(n, _)| *n as u64).collect();
    assert_eq!(sorted(&again), rest, "nothing that was acknowledged comes again");
    inbox.ack(&again).await;
    inbox.nothing().await;
    inbox.close().await;
    bed.close().await;
}

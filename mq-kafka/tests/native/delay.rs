//! Delayed messages.

use super::*;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_delayed_message_comes_when_it_is_due,
        what_has_no_target_when_due_is_put_aside,
        a_delay_survives_the_end_of_its_sender
    ]
}

async fn a_delayed_message_comes_when_it_is_due() {
    let bed = Bed::delaying(&name("")).await;
    let queue = bed.queue("due", 2).await;
    let mut inbox = bed.shared(&queue).await;
    let now = Timestamp::now();
    let delays = [0_u64, 300, 1500, 2600, 4500];
    let message = |d: &u64| {
        let due = now.plus(Duration::from_millis(*d));
        Message::text(d.to_string()).with_key("k").with_header("h", 1).deliver_at(due).with_timestamp(now)
    };
    bed.send(&Target::queue(&queue), delays.iter().rev().map(message)).await;
    let mut seen = Vec::new();
    while seen.len() < delays.len() {
        let got = inbox.take(1).await;
        let delay: u64 = got[0].message.to_str().unwrap().parse().unwrap();
        assert!(Timestamp::now() >= now.plus(Duration::from_millis(delay)), "{delay} came early");
        // Shown, not judged: a first delayed message makes its topic and moves the group.
        println!("{delay} ms: late by {:?}", Timestamp::now().since(now.plus(Duration::from_millis(delay))));
        let m = &got[0].message;
        assert_eq!((m.key(), m.timestamp(), m.headers().len()), (Some(&b"k"[..]), now, 1));
        inbox.ack(&got).await;
        seen.push(delay);
    }
    assert_eq!(seen, delays);
    inbox.close().await;
    bed.close().await;
}

async fn what_has_no_target_when_due_is_put_aside() {
    let namespace = name("");
    let bed = Bed::delaying(&namespace).await;
    let queue = bed.queue("gone", 1).await;
    let target = Target::queue(&queue);
    let due = Timestamp::now().plus(Duration::from_millis(1200));
    let id = name("id");
    bed.send(&target, [Message::text("x").with_id(id.as_str()).deliver_at(due)]).await;
    bed.connection.apply(&Change::Delete(Sort::Queue, queue.clone())).await.unwrap();
    loop {
        let event = tokio::time::timeout(Duration::from_secs(40), bed.connection.next_event()).await.unwrap();
        if matches!(&event, Event::Undelivered(found, _) if found.to_string() == id) {
            break;
        }
    }
    let aside = Target::queue(format!("{namespace}mq.undelivered"));
    let mut browse = bed.consumer(ConsumerOptions::new(aside, Mode::Browse)).await;
    let found = loop {
        let got = browse.take(1).await.remove(0);
        if got.message.stamped_id().to_string() == id {
            break got.message;
        }
    };
    assert_eq!(found.trail().unwrap().source.as_deref(), Some(queue.as_str()));
    browse.close().await;
    bed.close().await;
}

async fn a_delay_survives_the_end_of_its_sender() {
    let namespace = name("");
    let sender = Bed::with(config().namespace(&namespace)).await;
    let queue = sender.queue("heir", 1).await;
    let due = Timestamp::now().plus(Duration::from_secs(2));
    sender.send(&Target::queue(&queue), [Message::text("x").deliver_at(due)]).await;
    tokio::time::timeout(Duration::from_secs(15), sender.connection.close()).await.unwrap().unwrap();
    let bed = Bed::delaying(&namespace).await;
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(1).await;
    assert!(Timestamp::now() >= due);
    inbox.ack(&got).await;
    inbox.close().await;
    bed.connection.apply(&Change::Delete(Sort::Queue, queue)).await.unwrap();
    bed.close().await;
}

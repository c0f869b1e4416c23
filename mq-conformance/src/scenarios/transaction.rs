//! Transactions: all or nothing.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mq_core::driver::Target;
use mq_core::{Atomicity, Backoff, Kind, Message, Overflow, QueueSpec, Topic};

use crate::context::{Ctx, text};
use crate::outcome::{Failed, Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "transaction";
    nothing_is_visible_before_the_commit [Queues, Transactions];
    everything_is_visible_after_the_commit [Queues, Transactions];
    nothing_is_ever_visible_after_a_rollback [Queues, Transactions];
    a_drop_is_a_rollback [Queues, Transactions];
    a_lifetime_that_ends_is_a_rollback [Queues, Transactions];
    acks_are_part_of_it [Queues, Transactions];
    a_rollback_gives_deliveries_back [Queues, Transactions];
    a_dropped_transaction_gives_deliveries_back [Queues, Transactions];
    queues_and_topics_together [Queues, Topics, Transactions];
    one_that_is_too_large_is_refused [Queues, Transactions];
    a_send_to_a_missing_queue_fails_it [Queues, Transactions];
    messages_keep_their_order_and_headers [Queues, Transactions];
    a_stale_delivery_is_refused [Queues, Transactions] Disconnect;
    a_commit_survives_the_process [Queues, Transactions];
    a_commit_survives_a_restart [Queues, Transactions] Restart;
    a_restart_during_a_commit_leaves_nothing_half_done [Queues, Transactions] Restart;
    a_cut_before_the_commit_leaves_nothing [Queues, Transactions] Disconnect;
    many_transactions_at_once_stay_apart [Queues, Transactions];
    an_empty_transaction_commits [Queues, Transactions];
    a_retried_group_delivery_commits [Queues, Topics, Retry, Transactions];
    a_rolled_back_group_delivery_returns [Queues, Topics, Retry, Transactions];
    a_dropped_commit_is_all_or_none [Queues, Transactions];
    a_full_queue_stops_no_other [Queues, BoundedQueues, Transactions];
    a_refused_message_leaves_it_usable [Queues, Transactions];
    another_client_s_delivery_is_refused [Queues, Transactions];
    many_small_messages_commit_or_are_refused [Queues, Transactions];
    what_was_only_looked_at_is_not_acknowledged [Queues, Browse, Transactions];
}

/// What became visible, and when nothing more comes.
async fn seen(cx: &Ctx, queue: &str) -> Outcome<Vec<String>> {
    let mut consumer = cx.client.queue(queue).consumer().open().await?;
    let mut texts = cx.drain(&mut consumer).await?;
    consumer.close().await?;
    texts.sort_unstable();
    Ok(texts)
}

/// Waits until so many messages are visible in a queue.
async fn arrive(cx: &Ctx, queue: &str, n: usize) -> Outcome<Vec<String>> {
    let mut consumer = cx.client.queue(queue).consumer().open().await?;
    let mut texts = cx.read(&mut consumer, n).await?;
    cx.nothing(&mut consumer).await?;
    consumer.close().await?;
    texts.sort_unstable();
    Ok(texts)
}

async fn nothing_is_visible_before_the_commit(cx: Ctx) -> Outcome {
    cx.queue("a").await?;
    cx.queue("b").await?;
    let mut tx = cx.client.transaction().await?;
    tx.send("a", "debit").await?;
    tx.send("b", "credit").await?;
    check!(seen(&cx, "a").await?.is_empty() && seen(&cx, "b").await?.is_empty(), "seen before the commit");
    tx.commit().await?;
    check_eq!(arrive(&cx, "a", 1).await?, ["debit"], "queue a after the commit");
    check_eq!(arrive(&cx, "b", 1).await?, ["credit"], "queue b after the commit");
    Ok(())
}

async fn everything_is_visible_after_the_commit(cx: Ctx) -> Outcome {
    for name in ["a", "b", "c"] {
        cx.queue(name).await?;
    }
    let mut tx = cx.client.transaction().await?;
    for n in 0..30 {
        tx.send(["a", "b", "c"][n % 3], format!("{n:02}")).await?;
    }
    tx.commit().await?;
    let mut all = Vec::new();
    for name in ["a", "b", "c"] {
        all.extend(arrive(&cx, name, 10).await?);
    }
    all.sort_unstable();
    all.dedup();
    check_eq!(all.len(), 30, "different messages of one transaction");
    Ok(())
}

async fn nothing_is_ever_visible_after_a_rollback(cx: Ctx) -> Outcome {
    cx.queue("a").await?;
    let mut tx = cx.client.transaction().await?;
    tx.send("a", "never").await?;
    tx.rollback().await?;
    check!(seen(&cx, "a").await?.is_empty(), "a rolled-back message was seen");
    let mut tx = cx.client.transaction().await?;
    tx.send("a", "after").await?;
    tx.commit().await?;
    check_eq!(arrive(&cx, "a", 1).await?, ["after"], "the next transaction");
    Ok(())
}

async fn a_drop_is_a_rollback(cx: Ctx) -> Outcome {
    cx.queue("a").await?;
    for _ in 0..3 {
        let mut tx = cx.client.transaction().await?;
        tx.send("a", "never").await?;
    }
    check!(seen(&cx, "a").await?.is_empty(), "a message of a dropped transaction was seen");
    Ok(())
}

async fn a_lifetime_that_ends_is_a_rollback(cx: Ctx) -> Outcome {
    cx.queue("a").await?;
    let lifetime = cx.patience.tick.max(Duration::from_secs(1));
    let mut tx = cx.client.transaction_for(lifetime).await?;
    tx.send("a", "too late").await?;
    tokio::time::sleep(lifetime * 3).await;
    let late = tx.commit().await;
    check_kind!(late, Kind::TransactionAborted, "a commit after the lifetime");
    check!(seen(&cx, "a").await?.is_empty(), "a message of a transaction that expired was seen");
    Ok(())
}

async fn acks_are_part_of_it(cx: Ctx) -> Outcome {
    let input = cx.queue("in").await?;
    cx.queue("out").await?;
    for n in 0..5 {
        input.send(n.to_string()).await?;
    }
    let mut consumer = input.consumer().open().await?;
    let mut tx = cx.client.transaction().await?;
    for delivery in cx.take(&mut consumer, 5).await? {
        tx.send("out", format!("done {}", text(&delivery))).await?;
        tx.ack(delivery).await?;
    }
    tx.commit().await?;
    consumer.close().await?;
    check_eq!(arrive(&cx, "out", 5).await?.len(), 5, "outputs");
    check!(seen(&cx, "in").await?.is_empty(), "an input came again after the commit");
    Ok(())
}

async fn a_rollback_gives_deliveries_back(cx: Ctx) -> Outcome {
    let input = cx.queue("in").await?;
    cx.queue("out").await?;
    input.send("x").await?;
    let mut consumer = input.consumer().open().await?;
    for _ in 0..3 {
        let delivery = cx.next(&mut consumer).await?;
        check_eq!(delivery.attempt(), 1, "a rollback is no failure of the message");
        let mut tx = cx.client.transaction().await?;
        tx.send("out", "never").await?;
        tx.ack(delivery).await?;
        tx.rollback().await?;
    }
    cx.next(&mut consumer).await?.ack()?;
    cx.nothing(&mut consumer).await?;
    check!(seen(&cx, "out").await?.is_empty(), "an output of a rolled-back transaction was seen");
    Ok(())
}

async fn a_dropped_transaction_gives_deliveries_back(cx: Ctx) -> Outcome {
    let input = cx.queue("in").await?;
    input.send("x").await?;
    let mut consumer = input.consumer().open().await?;
    {
        let delivery = cx.next(&mut consumer).await?;
        let mut tx = cx.client.transaction().await?;
        tx.ack(delivery).await?;
    }
    check_eq!(cx.read(&mut consumer, 1).await?, ["x"], "after the drop");
    cx.nothing(&mut consumer).await
}

async fn queues_and_topics_together(cx: Ctx) -> Outcome {
    cx.queue("q").await?;
    let topic = cx.topic("t", 2).await?;
    let mut group = topic.group("g").open().await?;
    for commit in [false, true] {
        let mut tx = cx.client.transaction().await?;
        tx.send("q", format!("queue {commit}")).await?;
        tx.send(Target::topic("t"), Message::text(format!("topic {commit}")).with_key("k")).await?;
        cx.nothing(&mut group).await?;
        if commit { tx.commit().await? } else { tx.rollback().await? }
    }
    check_eq!(cx.all(&mut group, 1).await?, ["topic true"], "the topic");
    check_eq!(arrive(&cx, "q", 1).await?, ["queue true"], "the queue");
    Ok(())
}

async fn one_that_is_too_large_is_refused(cx: Ctx) -> Outcome {
    cx.queue("a").await?;
    let mut tx = cx.client.transaction().await?;
    tx.send("a", Message::new(vec![1; 600_000])).await?;
    let second = tx.send("a", Message::new(vec![2; 600_000])).await;
    check_kind!(second, Kind::TooLarge, "more than 1,000,000 bytes in one transaction");
    tx.rollback().await?;
    check!(seen(&cx, "a").await?.is_empty(), "a message of a rolled-back transaction was seen");
    Ok(())
}

async fn a_send_to_a_missing_queue_fails_it(cx: Ctx) -> Outcome {
    cx.queue("a").await?;
    let mut tx = cx.client.transaction().await?;
    tx.send("a", "x").await?;
    let outcome = match tx.send("missing", "y").await {
        Ok(()) => tx.commit().await,
        Err(e) => {
            tx.rollback().await?;
            Err(e)
        }
    };
    check!(outcome.is_err(), "a transaction with a send to a missing queue committed");
    check!(seen(&cx, "a").await?.is_empty(), "half of a failed transaction was seen");
    Ok(())
}

async fn messages_keep_their_order_and_headers(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("a").await?;
    let mut tx = cx.client.transaction().await?;
    for n in 0..20 {
        tx.send("a", Message::text(n.to_string()).with_key("k").with_header("n", n)).await?;
    }
    tx.commit().await?;
    let mut consumer = queue.consumer().open().await?;
    for (n, delivery) in cx.take(&mut consumer, 20).await?.into_iter().enumerate() {
        check_eq!(text(&delivery), n.to_string(), "the order within a transaction");
        let header = delivery.header("n").and_then(mq_core::HeaderValue::as_int);
        check_eq!(header, i64::try_from(n).ok(), "a header");
        check_eq!(delivery.key(), Some(&b"k"[..]), "the key");
        delivery.ack()?;
    }
    Ok(())
}

async fn a_stale_delivery_is_refused(cx: Ctx) -> Outcome {
    let input = cx.queue("in").await?;
    input.send("x").await?;
    let mut consumer = input.consumer().open().await?;
    let held = cx.next(&mut consumer).await?;
    cx.disconnect().await?;
    let again = consumer.recv_for(cx.patience.quiet * 2).await?;
    let mut tx = cx.client.transaction().await?;
    match tx.ack(held).await {
        // Where a session outlives its connection, what is held is still held.
        Ok(()) => check!(again.is_none(), "a delivery that came again is still good"),
        Err(unsettled) => {
            check_eq!(unsettled.error.kind(), Kind::Fenced, "a delivery from before the cut");
            let current = match again {
                Some(again) => again,
                None => cx.next(&mut consumer).await?,
            };
            // The first one may belong to the connection that was lost.
            tx = cx.client.transaction().await?;
            tx.ack(current).await?;
        }
    }
    tx.commit().await?;
    cx.nothing(&mut consumer).await?;
    input.send("y").await?;
    let held = cx.next(&mut consumer).await?;
    consumer.close().await?;
    let mut tx = cx.client.transaction().await?;
    check_kind!(tx.ack(held).await, Kind::Fenced, "a delivery of a consumer that is closed");
    drop(tx);
    let mut next = input.consumer().open().await?;
    check_eq!(cx.read(&mut next, 1).await?, ["y"], "what was not acknowledged");
    Ok(())
}

async fn a_commit_survives_the_process(cx: Ctx) -> Outcome {
    cx.queue("a").await?;
    let other = cx.second().await?;
    let mut tx = other.transaction().await?;
    for n in 0..5 {
        tx.send("a", n.to_string()).await?;
    }
    tx.commit().await?;
    // Gone right after the commit: whatever is still to be done, another process does.
    other.close().await?;
    drop(other);
    check_eq!(arrive(&cx, "a", 5).await?.len(), 5, "what a dead process committed");
    Ok(())
}

async fn a_commit_survives_a_restart(cx: Ctx) -> Outcome {
    cx.queue("a").await?;
    let mut tx = cx.client.transaction().await?;
    for n in 0..5 {
        tx.send("a", n.to_string()).await?;
    }
    tx.commit().await?;
    cx.restart().await?;
    let mut consumer = cx.client.queue("a").consumer().open().await?;
    let mut got = cx.all(&mut consumer, 5).await?;
    got.sort_unstable();
    got.dedup();
    check_eq!(got, ["0", "1", "2", "3", "4"], "what was committed before a restart");
    Ok(())
}

async fn a_restart_during_a_commit_leaves_nothing_half_done(cx: Ctx) -> Outcome {
    let queue = cx.queue("a").await?;
    // The first one of a connection takes longer.
    let mut first = cx.client.transaction().await?;
    first.send("a", "before").await?;
    first.commit().await?;
    let mut tx = cx.client.transaction().await?;
    for n in 0..5 {
        tx.send("a", n.to_string()).await?;
    }
    // Somewhere between the first step of the commit and the last: another place in each run.
    let spread = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_micros() % 50);
    let late = Duration::from_millis(spread.into());
    let restart = async {
        tokio::time::sleep(late).await;
        cx.restart().await
    };
    let (committed, restarted) = tokio::join!(tx.commit(), restart);
    restarted?;
    // Whatever became of it, what comes later is not held up, in whatever partition.
    let later: BTreeSet<String> = (0..30).map(|n| format!("later {n}")).collect();
    for text in &later {
        while queue.send(text.as_str()).await.is_err_and(|e| e.is_unknown()) {}
    }
    let mut consumer = queue.consumer().open().await?;
    let mut got = BTreeSet::new();
    while !got.is_superset(&later) || (committed.is_ok() && got.len() < 36) {
        let delivery = cx.next(&mut consumer).await?;
        got.insert(text(&delivery));
        delivery.ack()?;
    }
    while let Some(delivery) = consumer.recv_for(cx.patience.quiet).await? {
        got.insert(text(&delivery));
        delivery.ack()?;
    }
    match committed {
        Ok(()) => check_eq!(got.len(), 36, "what was committed, and 31 more, {late:?}"),
        Err(e) if e.is_unknown() => {
            check!([31, 36].contains(&got.len()), "half of it after {late:?}: {got:?}")
        }
        Err(e) => check_eq!(got.len(), 31, "after a commit that failed: {e}"),
    }
    Ok(())
}

async fn a_cut_before_the_commit_leaves_nothing(cx: Ctx) -> Outcome {
    let input = cx.queue("in").await?;
    cx.queue("out").await?;
    input.send("x").await?;
    let mut consumer = input.consumer().open().await?;
    let mut tx = cx.client.transaction().await?;
    tx.send("out", "maybe").await?;
    tx.ack(cx.next(&mut consumer).await?).await?;
    cx.disconnect().await?;
    let committed = tx.commit().await;
    let outputs = seen(&cx, "out").await?;
    match committed {
        // Where the sends are one stored message, it may still be stored after the cut: the input repeats then.
        Ok(()) => check_eq!(outputs, ["maybe"], "after a commit that succeeded"),
        Err(e) if e.is_unknown() => check!(outputs.len() <= 1, "outputs: {outputs:?}"),
        Err(_) => check!(outputs.is_empty(), "an output of a failed commit was seen"),
    }
    let again = consumer.recv_for(cx.patience.fail_over).await?;
    if cx.client.capabilities().atomicity == Atomicity::SendsWithAcks {
        let both = outputs.is_empty() == again.is_some();
        check!(both, "outputs {outputs:?}, input again: {}", again.is_some());
    } else {
        check!(again.is_some() || !outputs.is_empty(), "neither input nor output is left");
    }
    if let Some(delivery) = again {
        delivery.ack()?;
    }
    Ok(())
}

async fn many_transactions_at_once_stay_apart(cx: Ctx) -> Outcome {
    cx.queue("a").await?;
    let mut open = Vec::new();
    for n in 0..10 {
        let mut tx = cx.client.transaction().await?;
        for i in 0..3 {
            tx.send("a", format!("{n}-{i}")).await?;
        }
        open.push((n, tx));
    }
    let mut wanted = Vec::new();
    for (n, tx) in open {
        if n % 3 == 0 {
            tx.rollback().await?;
        } else {
            tx.commit().await?;
            wanted.extend((0..3).map(|i| format!("{n}-{i}")));
        }
    }
    check_eq!(arrive(&cx, "a", wanted.len()).await?, wanted, "what was committed");
    Ok(())
}

async fn an_empty_transaction_commits(cx: Ctx) -> Outcome {
    cx.client.transaction().await?.commit().await?;
    cx.client.transaction().await?.rollback().await?;
    Ok(())
}

/// `0`, `1`, `2` of one key.
async fn three_of_a_key(cx: &Ctx) -> Outcome<Topic> {
    cx.queue("out").await?;
    let topic = cx.topic("t", 1).await?;
    for n in 0..3 {
        topic.send(Message::text(n.to_string()).with_key("k")).await?;
    }
    Ok(topic)
}

/// What failed once and is acknowledged by a transaction then does not block its key for ever.
async fn a_retried_group_delivery_commits(cx: Ctx) -> Outcome {
    let topic = three_of_a_key(&cx).await?;
    let policy = Backoff::fixed(cx.patience.tick).max_attempts(5);
    let mut consumer = topic.group("g").retry(policy).open().await?;
    cx.next(&mut consumer).await?.retry("once").await?;
    let again = cx.next(&mut consumer).await?;
    check_eq!((text(&again), again.attempt()), ("0".into(), 2), "what failed comes again");
    let mut tx = cx.client.transaction().await?;
    tx.send("out", "done").await?;
    tx.ack(again).await?;
    tx.commit().await?;
    check_eq!(cx.read(&mut consumer, 2).await?, ["1", "2"], "the rest of the key");
    check_eq!(arrive(&cx, "out", 1).await?, ["done"], "the output");
    Ok(())
}

async fn a_rolled_back_group_delivery_returns(cx: Ctx) -> Outcome {
    let topic = three_of_a_key(&cx).await?;
    let policy = Backoff::fixed(cx.patience.tick).max_attempts(5);
    let mut consumer = topic.group("g").retry(policy).open().await?;
    cx.next(&mut consumer).await?.retry("once").await?;
    for drops in [false, true] {
        let again = cx.next(&mut consumer).await?;
        check_eq!(text(&again), "0", "the first of the key, in front of the others");
        check_eq!(again.attempt(), 2, "a rollback neither counts nor forgets a failure");
        let mut tx = cx.client.transaction().await?;
        tx.send("out", "never").await?;
        tx.ack(again).await?;
        if drops { drop(tx) } else { tx.rollback().await? }
    }
    check_eq!(cx.read(&mut consumer, 3).await?, ["0", "1", "2"], "the key goes on in its order");
    check!(seen(&cx, "out").await?.is_empty(), "an output of a rolled-back transaction was seen");
    Ok(())
}

/// A commit that its caller gives up goes on: the outputs are there and the input is gone, or the other way round.
async fn a_dropped_commit_is_all_or_none(cx: Ctx) -> Outcome {
    let (input, output) = (cx.queue("in").await?, cx.queue("out").await?);
    for round in 0..5 {
        input.send(format!("in {round}")).await?;
        let mut consumer = input.consumer().open().await?;
        let delivery = cx.next(&mut consumer).await?;
        let mut tx = cx.client.transaction().await?;
        tx.send("out", format!("out {round}")).await?;
        tx.ack(delivery).await?;
        {
            let mut commit = std::pin::pin!(tx.commit());
            // Polled so often at most, then dropped.
            for _ in 0..round {
                if futures_poll(commit.as_mut()).await.is_some() {
                    break;
                }
            }
        }
        let mut results = output.consumer().open().await?;
        let came = results.recv_for(cx.patience.fail_over / 4).await?;
        let again = consumer.recv_for(cx.patience.quiet).await?;
        if let Some(again) = &again {
            check_eq!(again.attempt(), 1, "a commit that was given up in round {round} is no failure");
        }
        check!(came.is_some() != again.is_some(), "round {round}: output {came:?}, input again {again:?}");
        for delivery in came.into_iter().chain(again) {
            delivery.ack()?;
        }
        consumer.close().await?;
        results.close().await?;
    }
    Ok(())
}

/// One poll of a future; `None` if it is not done yet.
async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let polled = std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await;
    if polled.is_none() {
        tokio::task::yield_now().await;
    }
    polled
}

/// One transaction writes to a queue that is full: those behind it do not wait for room there.
async fn a_full_queue_stops_no_other(cx: Ctx) -> Outcome {
    let full = QueueSpec::new("full").max_messages(1, Overflow::Refuse);
    let full = cx.declare_queue(full).await?;
    cx.queue("out").await?;
    full.send("all it may hold").await?;
    let mut first = cx.client.transaction().await?;
    match first.send("full", "one too many").await {
        Ok(()) => first.commit().await?,
        // Where room is taken when a message is added, a full queue refuses it at once.
        Err(e) if e.kind() == Kind::RateLimited => {}
        Err(e) => return Err(e.into()),
    }
    let mut second = cx.client.transaction().await?;
    second.send("out", "goes on").await?;
    second.commit().await?;
    check_eq!(arrive(&cx, "out", 1).await?, ["goes on"], "behind a transaction that writes to a full queue");
    Ok(())
}

async fn a_refused_message_leaves_it_usable(cx: Ctx) -> Outcome {
    cx.queue("q").await?;
    let mut tx = cx.client.transaction().await?;
    tx.send("q", Message::new(vec![b'a'; 600_000])).await?;
    check_kind!(
        tx.send("q", Message::new(vec![b'b'; 600_000])).await,
        Kind::TooLarge,
        "more than it may hold"
    );
    tx.send("q", "small").await?;
    tx.commit().await?;
    let mut consumer = cx.client.queue("q").consumer().open().await?;
    let mut sizes = Vec::new();
    for delivery in cx.take(&mut consumer, 2).await? {
        sizes.push(delivery.payload().len());
        delivery.ack()?;
    }
    sizes.sort_unstable();
    check_eq!(sizes, [5, 600_000], "what is visible");
    cx.nothing(&mut consumer).await
}

async fn what_was_only_looked_at_is_not_acknowledged(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    queue.send("x").await?;
    let mut browse = queue.browse().open().await?;
    let seen = cx.next(&mut browse).await?;
    let mut tx = cx.client.transaction().await?;
    check_kind!(
        tx.ack(seen).await.map_err(mq_core::Error::from),
        Kind::ConfigInvalid,
        "the ack of a browsed one"
    );
    tx.rollback().await?;
    browse.close().await?;
    Ok(())
}

async fn another_client_s_delivery_is_refused(cx: Ctx) -> Outcome {
    let input = cx.queue("in").await?;
    input.send("x").await?;
    let other = cx.second().await?;
    let mut consumer = other.queue("in").consumer().open().await?;
    let held = cx.next(&mut consumer).await?;
    let mut tx = cx.client.transaction().await?;
    let Err(refused) = tx.ack(held).await else {
        return Err(Failed::new("a transaction took the delivery of another client"));
    };
    check_eq!(refused.error.kind(), Kind::Fenced, "the delivery of another client");
    // It is still good where it came from.
    refused.delivery.ack()?;
    tx.rollback().await?;
    cx.acks_last(&consumer).await?;
    cx.nothing(&mut consumer).await
}

/// What each message costs beside its payload counts too: a transaction that took every send must commit.
async fn many_small_messages_commit_or_are_refused(cx: Ctx) -> Outcome {
    cx.queue("a").await?;
    let mut tx = cx.client.transaction_for(Duration::from_secs(120)).await?;
    let mut taken = 0;
    while taken < 40_000 {
        match tx.send("a", "x").await {
            Ok(()) => taken += 1,
            Err(e) => {
                check_eq!(e.kind(), Kind::TooLarge, "message {taken}");
                break;
            }
        }
    }
    check!(taken >= 1_000, "only {taken} small messages in a transaction");
    tx.commit().await?;
    cx.eventually("all of them are there", || async {
        Ok(cx.client.queue("a").depth().await?.ready.exact().is_none_or(|n| n == taken))
    })
    .await
}

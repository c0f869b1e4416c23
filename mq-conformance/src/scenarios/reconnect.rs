//! After a loss everything comes back by itself, with the default settings.

use std::collections::BTreeSet;
use std::time::Duration;

use mq_core::driver::Sort;
use mq_core::{ClientEvent, Delivery, Kind, Message, QueueSpec, Topology};
use tokio::time::{Instant, timeout};

use crate::context::{Ctx, text};
use crate::outcome::{Failed, Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "reconnect";
    a_send_waits_out_a_cut [Queues] Disconnect;
    a_send_waits_out_a_restart [Queues] Restart;
    a_first_connect_waits_out_a_restart [Queues] Restart;
    a_publish_waits_out_a_restart [Queues, Exchanges] Restart;
    a_consumer_resumes_after_a_cut [Queues] Disconnect;
    a_consumer_resumes_after_a_restart [Queues] Restart;
    confirmed_messages_survive_a_restart [Queues] Restart;
    sends_in_flight_through_a_cut_lose_nothing [Queues] Disconnect;
    events_tell_of_loss_and_return [Queues] Disconnect;
    an_exclusive_queue_is_made_again [Queues, Exclusive] Disconnect;
    an_exclusive_queue_keeps_its_bindings [Queues, Exchanges, Exclusive] Disconnect;
    the_topology_survives_a_restart [Queues, Exchanges] Restart;
    a_group_resumes_after_a_cut [Topics] Disconnect;
    many_cuts_lose_nothing [Queues] Disconnect;
    a_stalled_broker_ends_every_call_by_its_deadline [Queues] Stall;
    what_was_stalled_goes_on [Queues] Stall;
    a_queue_deleted_during_a_cut_ends_its_consumer [Queues] Disconnect;
    send_once_reports_unknown_instead_of_sending_twice [Queues] Disconnect;
    short_waits_resume [Queues] Disconnect;
    a_pause_holds_over_a_cut [Queues] Disconnect;
}

async fn a_send_waits_out_a_cut(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    queue.send("before").await?;
    cx.disconnect().await?;
    cx.ends("a send after a cut", queue.send("after")).await??;
    let mut consumer = queue.consumer().open().await?;
    check_eq!(cx.all(&mut consumer, 2).await?, ["before", "after"], "what is there");
    Ok(())
}

async fn a_send_waits_out_a_restart(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    let producer = patient(&cx).await?.queue("q").producer().build().await?;
    let sent = through_a_restart(&cx, |n| producer.send(n.to_string())).await?;
    let mut consumer = queue.consumer().open().await?;
    let got: BTreeSet<_> = cx.all(&mut consumer, sent).await?.into_iter().collect();
    check_eq!(got, (0..sent).map(|n| n.to_string()).collect(), "what is there");
    Ok(())
}

/// A client whose sends outlast any restart.
async fn patient(cx: &Ctx) -> Outcome<mq_core::Client> {
    cx.connect(cx.options().with_send_deadline(cx.patience.scenario)).await
}

/// Calls this over and over until the broker has been restarted. Every call must end well.
async fn through_a_restart<T, E, F>(cx: &Ctx, mut call: impl FnMut(usize) -> F) -> Outcome<usize>
where
    F: Future<Output = Result<T, E>>,
    Failed: From<E>,
{
    let restarted = std::sync::atomic::AtomicBool::new(false);
    call(0).await?;
    let calling = async {
        let mut calls = 1;
        while !restarted.load(std::sync::atomic::Ordering::Acquire) {
            call(calls).await?;
            calls += 1;
            tokio::time::sleep(cx.patience.tick / 10).await;
        }
        Outcome::Ok(calls)
    };
    let (ended, calls) = tokio::join!(
        async {
            let ended = cx.restart().await;
            restarted.store(true, std::sync::atomic::Ordering::Release);
            ended
        },
        calling
    );
    ended.and(calls)
}

/// Programs that start while the broker is away, one after the other.
async fn a_first_connect_waits_out_a_restart(cx: Ctx) -> Outcome {
    cx.queue("q").await?;
    let options = cx.options().with_connect_deadline(cx.patience.scenario);
    through_a_restart(&cx, |_| async {
        let client = cx.connect(options.clone()).await?;
        // The restart may fall into it.
        let _ = client.close().await;
        Outcome::Ok(())
    })
    .await?;
    Ok(())
}

async fn a_publish_waits_out_a_restart(cx: Ctx) -> Outcome {
    let topology = Topology::new()
        .exchange(mq_core::ExchangeSpec::direct("x"))
        .queue(QueueSpec::new("q"))
        .bind("x", "q", "k");
    cx.client.declare(topology).await?;
    cx.topology_seen().await;
    let exchange = patient(&cx).await?.exchange("x").mandatory();
    let published = through_a_restart(&cx, |n| exchange.publish("k", n.to_string())).await?;
    let mut consumer = cx.client.queue("q").consumer().open().await?;
    let got: BTreeSet<_> = cx.all(&mut consumer, published).await?.into_iter().collect();
    check_eq!(got.len(), published, "different messages");
    Ok(())
}

async fn a_consumer_resumes_after_a_cut(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut consumer = queue.consumer().open().await?;
    for round in 0..3 {
        cx.disconnect().await?;
        queue.send(round.to_string()).await?;
        check_eq!(cx.read(&mut consumer, 1).await?, [round.to_string()], "after cut number {round}");
        cx.acks_last(&consumer).await?;
    }
    Ok(())
}

async fn a_consumer_resumes_after_a_restart(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut consumer = queue.consumer().open().await?;
    queue.send("held through the restart").await?;
    let held = cx.next(&mut consumer).await?;
    cx.restart().await?;
    let again = cx.next(&mut consumer).await?;
    check_eq!((text(&again), again.attempt()), (text(&held), 1), "what was held comes again");
    check_kind!(held.ack(), Kind::Fenced, "the ack of what was held before");
    again.ack()?;
    Ok(())
}

async fn confirmed_messages_survive_a_restart(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let messages: Vec<_> = (0..200).map(|n| Message::text(n.to_string()).with_key(n.to_string())).collect();
    for result in queue.producer().build().await?.send_all(messages).await {
        result?;
    }
    cx.restart().await?;
    let mut consumer = queue.consumer().open().await?;
    let got: BTreeSet<_> = cx.all(&mut consumer, 200).await?.into_iter().collect();
    check_eq!(got.len(), 200, "different messages after a restart");
    Ok(())
}

/// Confirmed messages are there; each extra copy needs the cut as its excuse, so there are few.
async fn sends_in_flight_through_a_cut_lose_nothing(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let producer = queue.producer().window(16).build().await?;
    let sending = tokio::spawn(async move {
        let messages: Vec<_> =
            (0..300).map(|n| Message::text(n.to_string()).with_key(n.to_string())).collect();
        producer.send_all(messages).await
    });
    tokio::task::yield_now().await;
    cx.disconnect().await?;
    let results = cx.ends("sends through a cut", sending).await?.map_err(|e| Failed::new(e.to_string()))?;
    for (n, result) in results.into_iter().enumerate() {
        check!(result.is_ok(), "send {n} failed although its deadline was far: {result:?}");
    }
    let mut consumer = queue.consumer().open().await?;
    let got = cx.all(&mut consumer, 300).await?;
    let different: BTreeSet<_> = got.iter().collect();
    check_eq!(different.len(), 300, "different messages");
    check!(got.len() <= 300 + 16, "{} copies beyond what was in flight", got.len() - 300);
    Ok(())
}

/// A consumer that is opened again is told of, and only such a one: what it held is void.
async fn events_tell_of_loss_and_return(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut events = cx.client.events();
    let mut consumer = queue.consumer().open().await?;
    queue.send("held").await?;
    let held = cx.next(&mut consumer).await?;
    cx.disconnect().await?;
    queue.send("x").await?;
    while cx.read(&mut consumer, 1).await? != ["x"] {}
    let outlived = held.ack().is_ok();
    let (mut lost, mut connected, mut resumed) = (false, false, false);
    while !(lost && connected && (resumed || outlived)) {
        match timeout(cx.patience.fail_over, events.next()).await {
            Ok(Some(ClientEvent::Lost(_))) => lost = true,
            Ok(Some(ClientEvent::Connected(_))) => connected = lost,
            Ok(Some(ClientEvent::ConsumerResumed(name))) => resumed = name == "q",
            Ok(Some(_)) => {}
            _ => break,
        }
    }
    // What was emitted before `x` came is here by now.
    while let Ok(Some(event)) = timeout(Duration::ZERO, events.next()).await {
        resumed |= matches!(event, ClientEvent::ConsumerResumed(_));
    }
    check!(lost && connected, "told: lost {lost}, connected {connected}");
    check!(resumed != outlived, "told: resumed {resumed}, and what was held is still held: {outlived}");
    Ok(())
}

async fn an_exclusive_queue_is_made_again(cx: Ctx) -> Outcome {
    cx.client.declare(Topology::new().queue(QueueSpec::new("mine").exclusive())).await?;
    let queue = cx.client.queue("mine");
    let mut consumer = queue.consumer().open().await?;
    cx.disconnect().await?;
    cx.eventually("the exclusive queue takes messages again", || async {
        Ok(queue.send("again").await.is_ok())
    })
    .await?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["again"], "its consumer goes on");
    Ok(())
}

async fn the_topology_survives_a_restart(cx: Ctx) -> Outcome {
    let topology = Topology::new()
        .exchange(mq_core::ExchangeSpec::topic("x"))
        .queue(QueueSpec::new("q"))
        .bind("x", "q", "a.#");
    cx.client.declare(topology).await?;
    cx.topology_seen().await;
    cx.restart().await?;
    for (sort, name) in [(Sort::Exchange, "x"), (Sort::Queue, "q"), (Sort::Queue, "q.dlq")] {
        check!(cx.client.exists(sort, name).await?, "{} `{name}` is gone", sort.as_str());
    }
    cx.topology_seen().await;
    cx.client.exchange("x").mandatory().publish("a.b", "routed").await?;
    let mut consumer = cx.client.queue("q").consumer().open().await?;
    check_eq!(cx.all(&mut consumer, 1).await?, ["routed"], "the binding after a restart");
    Ok(())
}

async fn a_group_resumes_after_a_cut(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 2).await?;
    let mut consumer = topic.group("g").open().await?;
    let mut seen = BTreeSet::new();
    for round in 0..3 {
        for n in 0..10 {
            topic.send(Message::text(format!("{round}-{n}")).with_key(n.to_string())).await?;
        }
        while seen.len() < (round + 1) * 10 {
            let delivery = cx.next(&mut consumer).await?;
            seen.insert(text(&delivery));
            ack_unless_void(delivery)?;
        }
        consumer.flush_acks().await?;
        cx.disconnect().await?;
    }
    Ok(())
}

/// Acknowledges what was perhaps at hand before a cut: then it is void and comes again.
fn ack_unless_void(delivery: Delivery) -> Outcome {
    match delivery.ack() {
        Err(unsettled) if unsettled.error.kind() == Kind::Fenced => Ok(()),
        acked => Ok(acked?),
    }
}

async fn many_cuts_lose_nothing(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut consumer = queue.consumer().prefetch(10).open().await?;
    let (mut sent, mut seen) = (0, BTreeSet::new());
    for _ in 0..10 {
        for _ in 0..20 {
            queue.send(Message::text(sent.to_string()).with_key(sent.to_string())).await?;
            sent += 1;
        }
        for _ in 0..7 {
            let delivery = cx.next(&mut consumer).await?;
            seen.insert(text(&delivery));
            // Void if the cut came first: then it comes again.
            drop(delivery.ack());
        }
        cx.disconnect().await?;
    }
    while seen.len() < sent {
        let delivery = cx.next(&mut consumer).await?;
        seen.insert(text(&delivery));
        ack_unless_void(delivery)?;
    }
    Ok(())
}

async fn a_stalled_broker_ends_every_call_by_its_deadline(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    // Also the time in which a busy machine has to open the client's producer.
    let deadline = Duration::from_secs(5);
    let options = cx.options().with_send_deadline(deadline).with_admin_deadline(deadline);
    let client = cx.connect(options).await?;
    let (here, producer) = (client.queue("q"), client.queue("q").producer().build().await?);
    cx.stall().await?;
    let began = Instant::now();
    let (sent, handed, depth, opened) =
        tokio::join!(here.send("x"), producer.send_once("y"), here.depth(), here.consumer().open());
    let took = began.elapsed();
    cx.go_on().await?;
    check!(took <= deadline + Duration::from_secs(1), "calls to a stalled broker ended after {took:?}");
    for (what, failed) in [
        ("a send", sent.err()),
        ("a send once", handed.err()),
        ("a question", depth.err()),
        ("an open", opened.err()),
    ] {
        let error = failed.ok_or_else(|| Failed::new(format!("{what} to a stalled broker succeeded")))?;
        let late = matches!(error.kind(), Kind::Timeout | Kind::Disconnected);
        check!(late, "{what} to a stalled broker: {error}");
    }
    cx.eventually("everything works again", || async { Ok(queue.send("z").await.is_ok()) }).await
}

async fn what_was_stalled_goes_on(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut consumer = queue.consumer().open().await?;
    cx.stall().await?;
    let sending = {
        let queue = queue.clone();
        tokio::spawn(async move { queue.send("patient").await })
    };
    cx.nothing(&mut consumer).await?;
    cx.go_on().await?;
    cx.ends("a send through a stall", sending).await?.map_err(|e| Failed::new(e.to_string()))??;
    let got = cx.all(&mut consumer, 1).await?;
    check!(got.contains(&"patient".to_owned()), "what came after the stall: {got:?}");
    Ok(())
}

async fn a_queue_deleted_during_a_cut_ends_its_consumer(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let other = cx.second().await?;
    let mut consumer = other.queue("q").consumer().open().await?;
    queue.delete().await?;
    cx.disconnect().await?;
    let ended = cx.ends("the consumer of a deleted queue", consumer.recv()).await?;
    check_kind!(ended, Kind::NotFound, "a durable queue that is gone is not made again in silence");
    check!(!cx.client.exists(Sort::Queue, "q").await?, "the queue was made again");
    Ok(())
}

async fn send_once_reports_unknown_instead_of_sending_twice(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let producer = queue.producer().build().await?;
    let mut ends = Vec::new();
    for n in 0..40 {
        let sending = {
            let producer = producer.clone();
            tokio::spawn(async move { producer.send_once(n.to_string()).await })
        };
        tokio::task::yield_now().await;
        if n % 4 == 0 {
            cx.disconnect().await?;
        }
        let result = cx.ends("a send once", sending).await?.map_err(|e| Failed::new(e.to_string()))?;
        ends.push((n.to_string(), result));
    }
    let mut consumer = queue.consumer().open().await?;
    let confirmed = ends.iter().filter(|(_, result)| result.is_ok()).count();
    let got = cx.all(&mut consumer, confirmed).await?;
    for (body, result) in ends {
        let copies = got.iter().filter(|t| **t == body).count();
        match result {
            Ok(_) => check_eq!(copies, 1, "copies of the confirmed `{body}`"),
            Err(e) if e.is_unknown() => check!(copies <= 1, "{copies} copies of the unknown `{body}`"),
            Err(e) => check_eq!(copies, 0, "copies of `{body}`, which failed: {e}"),
        }
    }
    Ok(())
}

/// An application that looks at many things in turn waits for each of them but shortly.
async fn short_waits_resume(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let mut consumer = queue.consumer().open().await?;
    cx.disconnect().await?;
    queue.send("x").await?;
    let until = Instant::now() + cx.patience.fail_over;
    while Instant::now() < until {
        if let Some(delivery) = consumer.recv_for(Duration::from_millis(1)).await? {
            check_eq!(text(&delivery), "x", "what comes after the cut");
            delivery.ack()?;
            return Ok(());
        }
    }
    Err(Failed::new("short waits never opened the consumer again"))
}

async fn a_pause_holds_over_a_cut(cx: Ctx) -> Outcome {
    let queue = cx.ordered_queue("q").await?;
    for n in 0..4 {
        queue.send(n.to_string()).await?;
    }
    let mut consumer = queue.consumer().open().await?;
    let held = cx.next(&mut consumer).await?;
    consumer.pause().await?;
    cx.nothing(&mut consumer).await?;
    let mut events = cx.client.events();
    cx.disconnect().await?;
    queue.send("4").await?;
    // Where a session outlives its connection, nothing is opened again, and nothing held comes again.
    let outlived = held.ack().is_ok();
    let resumed = async {
        while !(outlived || matches!(events.next().await, Some(ClientEvent::ConsumerResumed(_)) | None)) {}
    };
    tokio::select! {
        biased;
        back = timeout(cx.patience.fail_over, resumed) => check!(back.is_ok(), "the consumer did not come back"),
        came = consumer.recv() => return Err(Failed::new(format!("{came:?} came during the pause"))),
    }
    cx.nothing(&mut consumer).await?;
    consumer.resume().await?;
    let wanted = &["0", "1", "2", "3", "4"][usize::from(outlived)..];
    let got: BTreeSet<_> = cx.read(&mut consumer, wanted.len()).await?.into_iter().collect();
    check_eq!(got.into_iter().collect::<Vec<_>>(), wanted, "what comes after the resume");
    cx.nothing(&mut consumer).await
}

async fn an_exclusive_queue_keeps_its_bindings(cx: Ctx) -> Outcome {
    let topology = Topology::new()
        .exchange(mq_core::ExchangeSpec::direct("news"))
        .queue(QueueSpec::new("mine").exclusive())
        .bind("news", "mine", "declared");
    cx.client.declare(topology).await?;
    cx.client.bind(mq_core::Binding::new("news", "mine", "bound")).await?;
    cx.client.bind(mq_core::Binding::new("news", "mine", "unbound")).await?;
    cx.client.unbind(mq_core::Binding::new("news", "mine", "unbound")).await?;
    cx.topology_seen().await;
    let mut consumer = cx.client.queue("mine").consumer().open().await?;
    let exchange = cx.client.exchange("news");
    exchange.publish("declared", "before").await?;
    check_eq!(cx.read(&mut consumer, 1).await?, ["before"], "before the cut");
    cx.disconnect().await?;
    for key in ["declared", "bound"] {
        let until = Instant::now() + cx.patience.fail_over;
        while !arrives(&cx, &mut consumer, key).await? {
            check!(Instant::now() < until, "the binding by `{key}` has not come back");
        }
    }
    check!(!arrives(&cx, &mut consumer, "unbound").await?, "a binding that was removed has come back");
    Ok(())
}

/// True if what is published with this key comes.
async fn arrives(cx: &Ctx, consumer: &mut mq_core::Consumer, key: &str) -> Outcome<bool> {
    cx.client.exchange("news").publish(key, key).await?;
    Ok(cx.drain(consumer).await?.iter().any(|text| text == key))
}

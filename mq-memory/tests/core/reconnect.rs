//! What comes back after a cut, and what does not end a client.

use std::time::Duration;

use mq_core::{Backoff, Client, ClientOptions, Error, ExchangeSpec, Kind, QueueSpec, Registry, Topology};
use mq_memory::{MemoryConfig, MemoryConnector, Operation, Switchboard};
use tokio::time::Instant;

use crate::common::{S, rig};

#[tokio::test(start_paused = true)]
async fn refused_logins_while_a_broker_starts() {
    let (broker, client) = rig(|_| ()).await;
    let refused = Error::new(Kind::Unauthenticated, "still loading users");
    broker.switchboard().fail_next(Operation::Connect, 8, refused);
    broker.switchboard().disconnect();
    let sent = tokio::time::timeout(S * 120, async { while client.queue("q").send("x").await.is_err() {} });
    sent.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn logins_that_are_refused_for_good_end_the_client() {
    let (broker, client) = rig(|_| ()).await;
    let refused = Error::new(Kind::Unauthenticated, "the account is gone");
    broker.switchboard().fail_next(Operation::Connect, 1_000, refused);
    broker.switchboard().disconnect();
    let mut kind = Kind::Timeout;
    for _ in 0..20 {
        kind = client.queue("q").send("x").await.unwrap_err().kind();
        if kind != Kind::Timeout {
            break;
        }
    }
    assert_eq!(kind, Kind::Unauthenticated);
}

#[tokio::test(start_paused = true)]
async fn the_first_connect_waits_for_a_broker_that_starts() {
    let broker = MemoryConnector::new(&MemoryConfig::new()).unwrap();
    broker.switchboard().restart(S * 8);
    let client = Client::connect(broker, ClientOptions::new()).await.unwrap();
    client.declare(Topology::new().queue(QueueSpec::new("q"))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_first_connect_ends_by_its_deadline_and_says_what_was_wrong() {
    let broker = MemoryConnector::new(&MemoryConfig::new()).unwrap();
    broker.switchboard().down();
    let began = Instant::now();
    let options = ClientOptions::new().with_connect_deadline(S * 3);
    let e = Client::connect(broker.clone(), options).await.unwrap_err();
    assert_eq!((e.kind(), e.is_temporary()), (Kind::Disconnected, true), "{e}");
    assert!(began.elapsed() > S && began.elapsed() <= S * 3, "{:?}", began.elapsed());
    broker.switchboard().up();
    broker.switchboard().stall();
    let e = Client::connect(broker, ClientOptions::new()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Timeout, "{e}");
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_refused_at_the_first_connect_is_told_at_once() {
    let broker = MemoryConnector::new(&MemoryConfig::new()).unwrap();
    let refused = Error::new(Kind::Unauthenticated, "wrong password");
    broker.switchboard().fail_next(Operation::Connect, 1, refused);
    let began = Instant::now();
    let e = Client::connect(broker, ClientOptions::new()).await.unwrap_err();
    assert_eq!((e.kind(), began.elapsed()), (Kind::Unauthenticated, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_url_says_how_long_an_administrative_call_may_take() {
    let registry = Registry::new().with(mq_memory::backend());
    for seconds in [2, 60] {
        let url = format!("memory://told-by-url?admin_timeout={seconds}s");
        let client = registry.connect(&url).await.unwrap();
        let switchboard = Switchboard::of("told-by-url").unwrap();
        switchboard.down();
        let began = Instant::now();
        let e = client.queue("q").depth().await.unwrap_err();
        assert_eq!((e.kind(), began.elapsed().as_secs()), (Kind::Timeout, seconds), "{e}");
        switchboard.up();
    }
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_queue_keeps_its_bindings() {
    for emulated in [false, true] {
        let (broker, client) = rig(|d| d.exchanges = emulated).await;
        let topology = Topology::new()
            .exchange(ExchangeSpec::fanout("news"))
            .queue(QueueSpec::new("mine").exclusive())
            .bind("news", "mine", "");
        client.declare(topology).await.unwrap();
        let mut consumer = client.queue("mine").consumer().open().await.unwrap();
        broker.switchboard().disconnect();
        tokio::time::sleep(S * 30).await;
        assert!(consumer.recv_for(S).await.unwrap().is_none());
        client.exchange("news").publish("", "after").await.unwrap();
        assert!(consumer.recv_for(S * 10).await.unwrap().is_some(), "emulated: {emulated}");
    }
}

/// What had arrived before the cut is void and comes again: nobody is made to work on it.
#[tokio::test(start_paused = true)]
async fn what_arrived_before_a_cut_is_not_handed_out_after_it() {
    let (broker, client) = rig(|_| ()).await;
    let queue = client.queue("q");
    for n in 0..20 {
        queue.send(format!("{n}")).await.unwrap();
    }
    let mut consumer = queue.consumer().prefetch(20).open().await.unwrap();
    let held = consumer.recv_for(S).await.unwrap().unwrap();
    broker.switchboard().disconnect();
    tokio::time::sleep(S).await;
    assert!(held.ack().is_err(), "it is void");
    for n in 0..20 {
        let delivery = consumer.recv_for(S * 30).await.unwrap().unwrap();
        assert_eq!(delivery.payload(), n.to_string().as_bytes());
        delivery.ack().unwrap_or_else(|_| panic!("{n} is void"));
    }
    assert!(consumer.recv_for(S).await.unwrap().is_none());
}

/// A role dies and the link stays up: the pause before the next try is longer than the time of the call.
#[tokio::test(start_paused = true)]
async fn a_long_pause_between_tries_ends_with_the_time_of_the_call() {
    let broker = MemoryConnector::new(&MemoryConfig::new()).unwrap();
    let options = ClientOptions::new()
        .with_reconnect(Backoff::fixed(S * 60))
        .with_send_deadline(S * 5)
        .with_admin_deadline(S * 5);
    let client = Client::connect(broker.clone(), options).await.unwrap();
    client.declare(Topology::new().queue(QueueSpec::new("q"))).await.unwrap();
    client.queue("q").send("opens it").await.unwrap();
    let faults = broker.switchboard();
    let dead = || Error::disconnected("the channel is gone");
    for operation in [Operation::Send, Operation::Open] {
        if operation == Operation::Open {
            broker.switchboard().fail_next(Operation::Send, 1, dead());
        }
        faults.fail_next(operation, 1, dead());
        let began = Instant::now();
        let sent = client.queue("q").producer().build().await.unwrap().send("x").await;
        assert!(began.elapsed() <= S * 5, "{operation:?}: {sent:?} after {:?}", began.elapsed());
        faults.clear();
    }
    faults.fail_next(Operation::Apply, 1, dead());
    let began = Instant::now();
    let declared = client.declare(Topology::new().queue(QueueSpec::new("p"))).await;
    assert!(began.elapsed() <= S * 5, "{declared:?} after {:?}", began.elapsed());
    faults.lose_reply(Operation::Send, 1);
    let began = Instant::now();
    let sent = client.queue("q").send("y").await;
    assert!(began.elapsed() <= S * 5, "{sent:?} after {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_jitter_that_is_no_part_is_refused() {
    for jitter in [f64::NAN, f64::INFINITY, -0.1, 1.1] {
        let broker = MemoryConnector::new(&MemoryConfig::new()).unwrap();
        let options = ClientOptions::new().with_reconnect(Backoff::fixed(S).with_jitter(jitter));
        let error = Client::connect(broker, options).await.unwrap_err();
        assert_eq!(error.kind(), Kind::ConfigInvalid, "{jitter}: {error}");
    }
}

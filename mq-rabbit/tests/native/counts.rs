//! Counts that are wrong for a moment, and looks for what is not there.

use std::path::PathBuf;
use std::time::Duration;

use mq_core::driver::{
    Connection, Consumer, ConsumerOptions, Count, Depth, Described, Event, Mode, Query, Target,
};
use mq_core::{Kind, Result};
use mq_rabbit::RabbitConnection;

use crate::harness::{Broker, PATIENCE, connect, produce, ready, take, texts};

crate::tests![
    a_queue_without_a_leader_is_not_told_as_empty,
    a_leader_that_is_silent_is_waited_for,
    an_empty_queue_is_empty_at_once,
    looks_for_what_is_not_there_wear_nothing_out,
];

/// More than a connection has channel numbers.
const LOOKS: u32 = 2500;

/// A queue's process in the broker, stopped and started by `rabbitmqctl`.
struct Leader {
    ctl: PathBuf,
    name: String,
}

impl Leader {
    /// None where the broker is not one of `cargo xtask brokers`.
    fn of(broker: &Broker, queue: &str) -> Option<Self> {
        let ctl = broker.state().and_then(|state| Some(state["files"]["ctl"].as_str()?.into()));
        let ctl = broker.needs(ctl, "no rabbitmqctl: the broker is not one of `cargo xtask brokers`")?;
        Some(Self { ctl, name: format!("'%2F_{queue}'") })
    }

    async fn eval(&self, code: &str) {
        let code = code.replace("NAME", &self.name);
        let mut call = std::process::Command::new(&self.ctl);
        call.args(["eval", &code]);
        let ran = tokio::task::spawn_blocking(move || call.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.trim() == "ok", "{code}: {said}");
    }
}

async fn depth(connection: &RabbitConnection, queue: &str) -> Result<Depth> {
    match connection.describe(&Query::Depth(queue.to_owned())).await? {
        Described::Depth(depth) => Ok(depth),
        other => panic!("{other:?}"),
    }
}

/// The broker says at once that the queue is empty.
///
/// A queue without dead letters: 3.10 loses the supervisor of all workers for those when one of them meets a queue that
/// goes.
async fn a_queue_without_a_leader_is_not_told_as_empty(broker: Broker) {
    let own = broker.connect().await;
    let queue = broker.queue(&own, "q.dlq", |q| q).await;
    produce(&own, &queue, texts(0..3)).await;
    let Some(leader) = Leader::of(&broker, &queue) else { return };
    let config = broker.config().with_admin_timeout(Duration::from_millis(300));
    let hasty = connect(config).await.unwrap();
    leader.eval("ra:stop_server(quorum_queues, {NAME, node()}).").await;
    let told = depth(&hasty, &queue).await;
    let (told, ()) = tokio::join!(async { (told, depth(&own, &queue).await) }, async {
        leader.eval("ra:restart_server(quorum_queues, {NAME, node()}).").await;
    });
    let e = told.0.expect_err("a queue that nobody leads has no count");
    assert!(e.kind() == Kind::Timeout && e.is_temporary(), "{e}");
    assert_eq!(told.1.unwrap().ready, Count::Exact(3), "it is asked again until it has a leader");
    assert_eq!(ready(&own, &queue).await, 3);
    let browse = ConsumerOptions::new(Target::queue(&queue), Mode::Browse);
    let browser = own.open_consumer(&browse).await.unwrap();
    assert_eq!(take(&browser, 3).await.len(), 3);
    browser.close().await.unwrap();
}

/// The broker says after a quarter of a second that the queue is empty.
async fn a_leader_that_is_silent_is_waited_for(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q.dlq", |q| q).await;
    produce(&connection, &queue, texts(0..3)).await;
    let Some(leader) = Leader::of(&broker, &queue) else { return };
    leader.eval("sys:suspend(NAME).").await;
    let (depth, ()) = tokio::join!(depth(&connection, &queue), leader.eval("sys:resume(NAME)."));
    assert_eq!(depth.unwrap().ready, Count::Exact(3));
    assert_eq!(ready(&connection, &queue).await, 3, "what was asked for has gone back");
}

async fn an_empty_queue_is_empty_at_once(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    let priority = broker.queue(&connection, "p", mq_core::QueueSpec::with_priority).await;
    for queue in [&queue, &priority] {
        for _ in 0..3 {
            assert_eq!(ready(&connection, queue).await, 0);
        }
    }
}

/// An unbounded queue has no companion: each look for it is refused, and costs a channel number.
async fn looks_for_what_is_not_there_wear_nothing_out(broker: Broker) {
    let connection = broker.connect().await;
    let queue = broker.queue(&connection, "q", |q| q).await;
    produce(&connection, &queue, texts(0..1)).await;
    let work = async {
        for _ in 0..LOOKS {
            assert_eq!(ready(&connection, &queue).await, 1);
        }
    };
    tokio::select! {
        () = work => {}
        event = connection.next_event() => {
            assert!(!matches!(event, Event::Lost(_)), "{event:?}");
        }
    }
    let missing = Query::Exists(mq_core::driver::Sort::Queue, "no such queue".to_owned());
    let looked = tokio::time::timeout(PATIENCE, connection.describe(&missing)).await;
    assert_eq!(looked.expect("no answer").unwrap(), Described::Exists(false));
}

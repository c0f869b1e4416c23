//! What a backend does not offer must be refused, before any I/O.

use std::time::Duration;

use mq_core::driver::{Mode, Start, Target};
use mq_core::{Ability, Error, Kind, Message, MessageId, Overflow, QueueSpec, Topology};

use crate::context::Ctx;
use crate::outcome::{Failed, Outcome};

/// Uses an ability that is not offered, in the simplest way, on objects that do not exist: had the broker been
/// asked, it would have said `NotFound`.
pub(crate) async fn refused(cx: &Ctx, ability: Ability) -> Outcome {
    let error = use_it(cx, ability).await;
    match error {
        Some(e) if e.kind() == Kind::Unsupported => Ok(()),
        Some(e) => {
            Err(Failed::new(format!("`{}` must be refused as Unsupported, not: {e}", ability.label())))
        }
        None => Err(Failed::new(format!("`{}` is not offered, but its use was accepted", ability.label()))),
    }
}

async fn use_it(cx: &Ctx, ability: Ability) -> Option<Error> {
    let client = &cx.client;
    let queue = client.queue("missing");
    let open = |mode| client.consumer(Target::topic("missing"), mode).open();
    match ability {
        Ability::Queues => client.declare(Topology::new().queue(QueueSpec::new("q"))).await.err(),
        Ability::Exchanges => client.exchange("missing").publish("k", "x").await.err(),
        Ability::BoundedQueues => {
            let spec = QueueSpec::new("q").max_messages(1, Overflow::Refuse);
            client.declare(Topology::new().queue(spec)).await.err()
        }
        Ability::Topics => open(Mode::Group("g".into())).await.err(),
        Ability::Seek => return seek(cx).await,
        Ability::Broadcast => open(Mode::Broadcast).await.err(),
        Ability::Delay => queue.send(Message::text("x").with_delay(Duration::from_secs(1))).await.err(),
        Ability::Ttl => queue.send(Message::text("x").with_ttl(Duration::from_secs(1))).await.err(),
        Ability::Priority => queue.send(Message::text("x").with_priority(1)).await.err(),
        Ability::Browse => client.consumer(Target::queue("missing"), Mode::Browse).open().await.err(),
        Ability::CancelScheduled => queue.cancel_scheduled(&MessageId::from("x")).await.err(),
        Ability::Exclusive => queue.consumer().exclusive().open().await.err(),
        _ => Some(Error::unsupported("cannot be asked for by a call of its own")),
    }
}

/// Seek needs a consumer; the topic must exist for it.
async fn seek(cx: &Ctx) -> Option<Error> {
    if !cx.can(Ability::Topics) {
        return Some(Error::unsupported("without topics there is nothing to seek"));
    }
    let topic = cx.topic("t", 1).await.ok()?;
    let mut consumer = topic.group("g").open().await.ok()?;
    consumer.seek(Start::Earliest, &[]).await.err()
}

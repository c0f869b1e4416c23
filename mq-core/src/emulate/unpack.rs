//! The owner of the envelopes: unpacks them in commit order, confirming each message before it acks the envelope.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Base;
use crate::capability::Ability;
use crate::driver::{Change, ConsumerOptions, Incoming, Mode, Target};
use crate::error::{Error, Kind, Result};
use crate::message::Message;
use crate::protocol::envelope::Envelope;
use crate::protocol::objects;
use crate::spec::QueueSpec;
use crate::trail::DeathReason;

/// Envelopes the owner holds at most.
const PREFETCH: u32 = 16;
/// How long a message that its target refuses for now holds up the envelopes behind it, before it is put aside.
const PATIENCE: Duration = Duration::from_secs(300);

/// The queue of the envelopes: one partition, so that one consumer has all of them in order.
pub(super) fn queue(base: &Base) -> QueueSpec {
    QueueSpec::new(base.own(objects::ENVELOPES)).with_parallelism(1).with_max_deaths(u32::MAX)
}

impl Base {
    /// Makes the queue of the envelopes.
    pub(super) async fn declare_envelopes(&self) -> Result<()> {
        self.apply(Change::DeclareQueue(queue(self))).await.map(drop)
    }

    /// Unpacks in the background, in turn with other processes, if this client does such work.
    pub(crate) fn start_unpacking(self: &Arc<Self>) {
        if self.info.core.transactions && self.options.background {
            self.start("unpack", |base| async move { session(&base).await });
        }
    }
}

async fn session(base: &Arc<Base>) -> Result<()> {
    let exclusive = base.info.capabilities.check(Ability::Exclusive).is_ok();
    let mode = if exclusive { Mode::Exclusive } else { Mode::Shared };
    let mut options = ConsumerOptions::new(Target::queue(base.own(objects::ENVELOPES)), mode);
    options.prefetch = PREFETCH;
    options.max_deaths = u32::MAX;
    base.drain(&options, |incoming| unpack(Arc::clone(base), incoming)).await
}

async fn unpack(base: Arc<Base>, incoming: Incoming) -> Result<()> {
    let own = objects::ENVELOPES;
    let envelope = match Envelope::decode(incoming.message.payload().clone()) {
        Ok(envelope) => envelope,
        Err(error) => {
            let cause = error.to_string();
            return base.put_aside(incoming.message, DeathReason::Malformed, own, &cause).await;
        }
    };
    // All are on their way before the first confirm is awaited: that keeps their order and costs one round trip.
    let mut flying = Vec::with_capacity(envelope.sends.len());
    for (to, message) in &envelope.sends {
        flying.push(base.hand_over(to, message.clone(), base.options.send_deadline).await);
    }
    for (handed, (to, message)) in flying.into_iter().zip(envelope.sends) {
        let answer = tokio::time::timeout(base.options.send_deadline, handed.confirmed()).await;
        let late = |_| Err(Error::timeout("unpack", base.options.send_deadline));
        if let Err(error) = answer.unwrap_or_else(late) {
            insist(&base, &to, message, error).await?;
        }
    }
    Ok(())
}

/// Sends one message of an envelope again and again, and puts it aside if that is in vain.
async fn insist(base: &Base, to: &Target, message: Message, mut error: Error) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut tries = 0;
    loop {
        if error.kind() == Kind::Closed {
            return Err(error);
        }
        // Without a connection nobody else could do better: waiting for the next one holds nobody up.
        if error.kind() != Kind::Disconnected && (!error.is_temporary() || Instant::now() >= until) {
            let cause = format!("a message of a transaction for {} `{}`: {error}", to.sort.as_str(), to.name);
            return base.put_aside(message, DeathReason::Rejected, &to.name, &cause).await;
        }
        tries += 1;
        tokio::select! {
            () = tokio::time::sleep(base.options.reconnect.next_pause(tries)) => {}
            ending = base.ending() => return Err(ending),
        }
        match base.send(to, message.clone(), base.options.send_deadline).await {
            Ok(_) => return Ok(()),
            Err(again) => error = again,
        }
    }
}

//! The owner of the envelopes: unpacks them in commit order, confirming each message before it acks the envelope.

use std::sync::Arc;

use super::Base;
use super::deliver::Gone;
use crate::capability::Ability;
use crate::driver::{Change, ConsumerOptions, Incoming, Mode, Target};
use crate::error::Result;
use crate::protocol::envelope::Envelope;
use crate::protocol::objects;
use crate::spec::QueueSpec;
use crate::trail::DeathReason;

/// Envelopes the owner holds at most.
const PREFETCH: u32 = 16;
/// The queue of the envelopes: one consumer at a time has all of them, in order.
pub(super) fn queue(base: &Base) -> QueueSpec {
    QueueSpec::new(base.own(objects::ENVELOPES)).with_parallelism(1).with_max_deaths(u32::MAX).owned()
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
    let mut envelope = match Envelope::decode(incoming.message.payload().clone()) {
        Ok(envelope) => envelope,
        Err(error) => {
            let cause = error.to_string();
            return base.put_aside(incoming.message, DeathReason::Malformed, own, &cause).await;
        }
    };
    // A full queue must not hold up the transactions behind this one: as copies of mq's own, which an empty trail
    // marks, they are not subject to its bound.
    for (_, message) in &mut envelope.sends {
        message.trail_mut();
    }
    base.deliver(envelope.sends, Gone::PutAside).await
}

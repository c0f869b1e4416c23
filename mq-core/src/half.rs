//! Half messages: stored but invisible until their local transaction commits.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::Ability;
use crate::client::Client;
use crate::deadline::Budget;
use crate::driver::erased::DynHalf;
use crate::driver::{Check, Decided, HalfId, HalfOptions, Sort, Target, Verdict};
use crate::emulate::half::EmulatedHalf;
use crate::error::{Error, Fate, Kind, Result, Status};
use crate::event::ClientEvent;
use crate::id::MessageId;
use crate::layer::{Outgoing, Part};
use crate::limits;
use crate::message::Message;
use crate::producer::check_options;

use self::shared::{Shared, answer_checks};

mod shared;

/// Knows what became of a local transaction, from what it wrote: asked when no verdict has come, also in another
/// process of the same producer group.
#[async_trait::async_trait]
pub trait Checker: Send + Sync + 'static {
    /// The verdict on this message, or [`Verdict::Unknown`] to be asked again later. Answer from durable state: this
    /// process may never have seen the transaction.
    async fn check(&self, half: &Check) -> Verdict;
}

/// The half message inside a local transaction.
#[derive(Clone, Debug)]
pub struct Local {
    id: MessageId,
}

impl Local {
    /// The id of the message: store it with the local transaction, so that a checker can find it.
    #[must_use]
    pub fn id(&self) -> &MessageId {
        &self.id
    }
}

/// Builds a [`HalfProducer`].
#[derive(Debug)]
pub struct HalfBuilder {
    client: Client,
    options: HalfOptions,
}

impl HalfBuilder {
    /// Age without a verdict at which the checker is asked first. Default 6 s.
    #[must_use]
    pub fn check_after(mut self, age: Duration) -> Self {
        self.options.check_after = age;
        self
    }

    /// Pause between two questions. Default 10 s.
    #[must_use]
    pub fn check_every(mut self, pause: Duration) -> Self {
        self.options.check_every = pause;
        self
    }

    /// Questions before the message is parked and reported. Default 15, at least 1.
    #[must_use]
    pub fn max_checks(mut self, checks: u32) -> Self {
        self.options.max_checks = checks;
        self
    }

    /// Opens the producer and starts to answer questions.
    ///
    /// # Errors
    /// [`Unsupported`](Kind::Unsupported), [`ConfigInvalid`](Kind::ConfigInvalid).
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn open(mut self, checker: impl Checker) -> Result<HalfProducer> {
        let inner = &self.client.inner;
        inner.info.capabilities.check(Ability::HalfMessages)?;
        limits::check_name("producer group", &self.options.group)?;
        self.options.group = inner.full_name("producer group", &self.options.group)?;
        if self.options.max_checks == 0 || self.options.check_every.is_zero() {
            return Err(Error::config("half messages need at least 1 check and a pause between checks"));
        }
        let emulated = if inner.info.core.half {
            let opened = EmulatedHalf::open(&inner.base, &self.options).await?;
            Some(Arc::new(opened) as Arc<dyn DynHalf>)
        } else {
            None
        };
        let shared = Arc::new(Shared {
            client: self.client,
            options: self.options,
            role: Mutex::default(),
            emulated,
            live: Mutex::default(),
            checker: Box::new(checker),
        });
        shared
            .role(&mut Budget::new("open half messages", shared.client.inner.options.admin_deadline))
            .await?;
        if shared.client.inner.options.background {
            tokio::spawn(answer_checks(Arc::downgrade(&shared)));
        }
        Ok(HalfProducer { shared })
    }
}

impl Client {
    /// Half messages of a producer group with the default times. The checker is asked by the broker side when no
    /// verdict comes, in any live process of the group.
    ///
    /// # Errors
    /// As for [`HalfBuilder::open`].
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn half_messages(
        &self,
        group: impl Into<String>,
        checker: impl Checker,
    ) -> Result<HalfProducer> {
        self.half_producer(group).open(checker).await
    }

    /// Builds a producer of half messages.
    #[must_use]
    pub fn half_producer(&self, group: impl Into<String>) -> HalfBuilder {
        HalfBuilder { client: self.clone(), options: HalfOptions::new(group) }
    }
}

/// Sends half messages. Clones share the group's checker task, which ends with the last of them.
#[derive(Clone)]
pub struct HalfProducer {
    shared: Arc<Shared>,
}

impl fmt::Debug for HalfProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HalfProducer").field("group", &self.shared.options.group).finish_non_exhaustive()
    }
}

impl HalfProducer {
    /// Stores a message that nobody sees, runs the local transaction, and gives its verdict. An error of the local
    /// transaction is a rollback, and is returned. A local transaction that is dropped half-way gives no verdict:
    /// the checker is asked.
    ///
    /// # Errors
    /// The local transaction's; [`NotFound`](Kind::NotFound) for a missing target. [`Timeout`](Kind::Timeout) if
    /// storing the message took so long that the checker may have been asked already: the local transaction did not
    /// run, and the message is rolled back. [`Fenced`](Kind::Fenced) if another verdict was stored before this one:
    /// the local transaction did run, and the message went the other way. A verdict that cannot be stored is **not**
    /// an error of the send: the broker asks the checker, so `Ok(Decided::HandedOver)` is returned.
    ///
    /// # Cancel safety
    /// Before the half message is stored nothing happened; after that the checker decides.
    pub async fn send<F, Fut, E>(
        &self,
        to: impl Into<Target>,
        message: impl Into<Message>,
        local: F,
    ) -> Result<Decided, E>
    where
        F: FnOnce(Local) -> Fut,
        Fut: Future<Output = Result<Verdict, E>>,
        E: From<Error>,
    {
        let (to, message) = self.ready(to.into(), message.into())?;
        // From here on nobody in this process answers for it, however long it takes to store it.
        let _live = self.shared.begin(message.stamped_id());
        let (id, begun) = self.store(&to, message).await?;
        if begun.elapsed() >= self.shared.options.check_after {
            return Err(self.too_late(&id).await.into());
        }
        let (verdict, failed) = match local(Local { id: id.0.clone() }).await {
            Ok(verdict) => (verdict, None),
            Err(error) => (Verdict::Rollback, Some(error)),
        };
        let decided = match verdict {
            Verdict::Unknown => Ok(Decided::HandedOver),
            Verdict::Commit | Verdict::Rollback => self.decide(&id, verdict).await,
        };
        match failed {
            Some(error) => Err(error),
            None => Ok(self.outcome(&id, verdict, decided)?),
        }
    }

    /// What the sender hears about its verdict.
    fn outcome(&self, id: &HalfId, verdict: Verdict, decided: Result<Decided>) -> Result<Decided> {
        match decided {
            Ok(Decided::Already(first)) if first != verdict => Err(self.shared.explain(contradicted(first))),
            Ok(decided) => Ok(decided),
            Err(error) => {
                tracing::warn!(%error, ?id, "a verdict could not be stored; the checker will be asked");
                Ok(Decided::HandedOver)
            }
        }
    }

    /// The checker of another process may have answered by now: the local transaction must not begin.
    async fn too_late(&self, id: &HalfId) -> Error {
        let check_after = self.shared.options.check_after;
        let fate = match self.decide(id, Verdict::Rollback).await {
            Ok(Decided::Already(Verdict::Commit)) | Err(_) => Fate::Unknown,
            Ok(_) => Fate::Rejected,
        };
        let error = Error::new(
            Kind::Timeout,
            format!(
                "storing the half message took longer than {check_after:?}, so its local transaction did not run; send it anew, or raise check_after"
            ),
        );
        self.shared.explain(error.with_status(Status::Temporary).with_fate(fate))
    }

    /// Stores a message that nobody sees. The verdict is given by [`decide`](Self::decide), or by the checker.
    ///
    /// # Errors
    /// [`NotFound`](Kind::NotFound) for a missing target; [`Unsupported`](Kind::Unsupported) for a delayed message.
    ///
    /// # Cancel safety
    /// It may be stored; the checker is asked then.
    pub async fn prepare(&self, to: impl Into<Target>, message: impl Into<Message>) -> Result<HalfId> {
        let (to, message) = self.ready(to.into(), message.into())?;
        self.store(&to, message).await.map(|(id, _)| id)
    }

    /// Checks and stamps what is to be stored.
    fn ready(&self, mut to: Target, mut message: Message) -> Result<(Target, Message)> {
        let inner = &self.shared.client.inner;
        if to.sort == Sort::Exchange {
            return Err(Error::config("a half message goes to one queue or topic, never to an exchange"));
        }
        if !inner.options.layers.is_empty() {
            message.stamp(inner.clock.now());
            let outgoing = Outgoing { target: &to, routing_key: "", part: Part::Half };
            inner.options.layers.send(&outgoing, &mut message);
        }
        to.name = inner.full_name(to.sort.as_str(), &to.name)?;
        limits::check_message(&message, inner.info.capabilities.limits.max_body)?;
        message.clear_trail();
        message.stamp(inner.clock.now());
        if message.due().is_some() {
            return Err(Error::unsupported("a message cannot be half and delayed; leave one of them out"));
        }
        check_options(&message, &inner.info.capabilities, inner.clock.now())?;
        Ok((to, message))
    }

    /// Stores it; also says when that began, for its age counts from there.
    async fn store(&self, to: &Target, message: Message) -> Result<(HalfId, Instant)> {
        let mut budget = Budget::new("prepare", self.shared.client.inner.options.send_deadline);
        let role = self.shared.role(&mut budget).await?;
        let begun = Instant::now();
        let prepared = role.prepare(to, message, self.shared.options.check_after);
        let id = budget.run(prepared).await?.map_err(|e| self.shared.explain(e))?;
        Ok((id, begun))
    }

    /// Gives the verdict on a prepared message. Repeating the same one is no error.
    ///
    /// # Errors
    /// The verdict may not be stored; the checker will be asked.
    ///
    /// # Cancel safety
    /// The verdict may be stored or not; the checker is asked then.
    pub async fn decide(&self, id: &HalfId, verdict: Verdict) -> Result<Decided> {
        let mut budget = Budget::new("decide", self.shared.client.inner.options.send_deadline);
        let decided = self.shared.decide(&mut budget, id, verdict, None).await?;
        if let Decided::Already(first) = decided
            && first != verdict
        {
            self.shared.client.inner.link.events.emit(ClientEvent::Contradiction(id.0.clone()));
        }
        Ok(decided)
    }
}

/// The error of a verdict that came second.
fn contradicted(first: Verdict) -> Error {
    let text = match first {
        Verdict::Commit => {
            "the message was committed before this verdict came; repair what the local transaction left"
        }
        _ => {
            "the message was rolled back before this verdict came; undo the local transaction, or send the message anew"
        }
    };
    Error::new(Kind::Fenced, text)
}

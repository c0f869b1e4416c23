//! What users write: a function from a message to a result.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::Received;
use crate::error::{Error, Kind, Status};

/// What a handler returns.
pub type Handled = Result<(), Failure>;

/// Why a handler failed, and whether trying again can help. Any error becomes one by `?`: an
/// [`mq` error](Error) that is permanent is a permanent failure, every other error is retried. Errors that speak of
/// the process and not of the message ([`Closed`](Kind::Closed), [`Fenced`](Kind::Fenced),
/// [`Unexpected`](Kind::Unexpected)) are retried too: another try, or another process, may succeed.
pub struct Failure {
    error: Box<dyn StdError + Send + Sync>,
    permanent: bool,
}

impl Failure {
    /// True if the message is dead-lettered without another try.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let permanent = error.downcast_ref::<Error>().is_some_and(is_permanent);
        Self { error, permanent }
    }
}

/// True if the same message would fail in the same way again, whoever handles it.
fn is_permanent(error: &Error) -> bool {
    let of_the_process = matches!(error.kind(), Kind::Closed | Kind::Fenced | Kind::Unexpected);
    error.status() == Status::Permanent && !of_the_process
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").field("error", &self.error).field("permanent", &self.permanent).finish()
    }
}

/// Makes any error a permanent failure: the message is dead-lettered without another try.
pub fn permanent(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Failure {
    Failure { error: error.into(), permanent: true }
}

/// Handles one message. Every `async` function or closure from a [`Received`] to a [`Handled`] is one.
#[async_trait::async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Handles one message.
    async fn handle(&self, message: Received) -> Handled;
}

#[async_trait::async_trait]
impl<F, Fut> Handler for F
where
    F: Fn(Received) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Handled> + Send + 'static,
{
    async fn handle(&self, message: Received) -> Handled {
        self(message).await
    }
}

/// Handles a batch of messages. Every `async` function or closure from a `Vec<Received>` to a [`Handled`] is one.
#[async_trait::async_trait]
pub trait BatchHandler: Send + Sync + 'static {
    /// Handles a batch, which is never empty.
    async fn handle(&self, messages: Vec<Received>) -> Handled;
}

#[async_trait::async_trait]
impl<F, Fut> BatchHandler for F
where
    F: Fn(Vec<Received>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Handled> + Send + 'static,
{
    async fn handle(&self, messages: Vec<Received>) -> Handled {
        self(messages).await
    }
}

/// A handler of either sort.
pub(crate) enum Work {
    Single(Arc<dyn Handler>),
    Batch { handler: Arc<dyn BatchHandler>, max: usize, wait: Duration },
}

impl Work {
    pub(crate) fn single(handler: impl Handler) -> Self {
        Self::Single(Arc::new(handler))
    }

    pub(crate) fn batch(handler: impl BatchHandler, max: usize, wait: Duration) -> Self {
        Self::Batch { handler: Arc::new(handler), max, wait }
    }
}

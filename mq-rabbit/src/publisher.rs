//! The one task that owns a publishing channel.
//!
//! Two tasks that publish on clones of one channel get each other's confirms: the client takes the delivery tag
//! under one lock and queues the frames under another. So all publishes of a channel go through this task. It hands
//! over many at once and decides their fate by the rule of [`correlate`](crate::correlate).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, ConnectionStatus};
use mq_core::driver::{Receipt, Routed, Ticket};
use mq_core::{Error, Fate, Kind, MessageId, Result};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep};

use crate::connection::Links;
use crate::convert::SEQUENCE;
use crate::correlate::{Correlation, Outcome};
use crate::delay::{self, Delay};
use crate::error::{self, BACKEND};
use crate::flying::Flying;
use crate::patient::Patient;

/// Publishes that wait for the task.
const QUEUED: usize = 256;
/// Publishes that the task takes at a time.
const BATCH: usize = 64;
/// Unconfirmed publishes of one channel.
const IN_FLIGHT: usize = 4096;

/// Pause between two looks whether confirms come.
const LOOK: Duration = Duration::from_secs(4);
/// Looks in a row that may see none before the connection is tried.
const SILENT_LOOKS: u32 = 2;

/// One publish.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) exchange: ShortString,
    pub(crate) key: ShortString,
    pub(crate) payload: Bytes,
    pub(crate) properties: BasicProperties,
    pub(crate) headers: FieldTable,
    pub(crate) answer: Answer,
}

/// Who is told.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A message of the application, and what its outcome means.
    Ticket(Ticket, Meaning, Pending),
    /// The same, on its way to a queue that makes its senders wait when it is full.
    Patient(Box<Patient>),
    /// A record of our own.
    Reply(oneshot::Sender<Result<Outcome>>),
}

/// What an outcome means to the sender.
#[derive(Clone, Debug)]
pub(crate) enum Meaning {
    /// It was sent to a queue or topic.
    Target(mq_core::driver::Target),
    /// It was published through an exchange.
    Exchange {
        /// Matching no queue is an error, which names this message.
        mandatory: Option<MessageId>,
    },
    /// It entered the delay levels.
    Delayed(Arc<Delay>, Receipt),
}

impl Meaning {
    pub(crate) fn receipt(&self, result: Result<Outcome>) -> Result<Receipt> {
        if let Self::Delayed(delay, receipt) = self {
            return delayed(delay, *receipt, result);
        }
        match (result?, self) {
            (Outcome::Stored, Self::Target(_)) => Ok(Receipt::ONE),
            (Outcome::Stored, Self::Exchange { .. }) => Ok(Receipt::routed(Routed::Some)),
            (Outcome::Returned, Self::Target(target)) => Err(target.not_found()),
            (Outcome::Returned, Self::Exchange { mandatory: None }) => Ok(Receipt::routed(Routed::None)),
            (Outcome::Returned, Self::Exchange { mandatory: Some(id) }) => {
                let text = "the message matches no queue; bind one, or publish without mandatory";
                Err(Error::new(Kind::Unroutable, text).with_context("message_id", id.to_string()))
            }
            (Outcome::Refused, _) => {
                Err(Error::new(Kind::RateLimited, "a queue is full and refuses the message; try again later"))
            }
            (Outcome::Stored | Outcome::Returned, Self::Delayed(..)) => Err(gone()),
        }
    }
}

/// The levels take everything as long as they are complete.
fn delayed(delay: &Delay, receipt: Receipt, result: Result<Outcome>) -> Result<Receipt> {
    match result {
        Ok(Outcome::Stored) => Ok(receipt),
        Err(e) if e.kind() != Kind::NotFound => Err(e),
        incomplete => {
            delay.mark_broken();
            let fate = incomplete.map_or_else(|e| e.fate(), |_| Fate::Rejected);
            Err(delay::incomplete().with_fate(fate))
        }
    }
}

impl Answer {
    /// It was never handed over.
    pub(crate) fn refuse(self, error: Error) {
        self.give(Err(error));
    }

    fn give(self, result: Result<Outcome>) {
        match self {
            Self::Ticket(ticket, meaning, _pending) => {
                ticket.done(meaning.receipt(result));
            }
            Self::Patient(patient) => patient.answer(result),
            // Nobody waits any more: the caller was cancelled.
            Self::Reply(reply) => drop(reply.send(result)),
        }
    }
}

/// Counts what a producer has handed over and not yet heard of.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    count: AtomicUsize,
    empty: Notify,
}

impl Handed {
    pub(crate) fn one(self: &Arc<Self>) -> Pending {
        self.count.fetch_add(1, Ordering::AcqRel);
        Pending(Arc::clone(self))
    }

    /// Waits until all of it is answered.
    pub(crate) async fn settled(&self) {
        loop {
            let woken = self.empty.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            woken.await;
        }
    }
}

/// One publish that is not answered yet.
#[derive(Debug)]
pub(crate) struct Pending(Arc<Handed>);

impl Drop for Pending {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.empty.notify_waiters();
        }
    }
}

/// The way to a publishing channel. Cheap to clone; the task ends with the last clone, or with the channel.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    jobs: mpsc::Sender<Job>,
    fault: Arc<OnceLock<Error>>,
}

impl Publisher {
    /// Puts the channel into confirm mode and gives it to a task.
    pub(crate) async fn start(
        channel: Channel,
        connection: ConnectionStatus,
        links: Weak<Links>,
        limit: Duration,
    ) -> Result<Self> {
        let confirm = channel.confirm_select(ConfirmSelectOptions::default());
        let ready = error::within("open a publishing channel", limit, confirm).await;
        ready.map_err(|e| error::whose(e, &connection))?;
        let (jobs, inbox) = mpsc::channel(QUEUED);
        let fault = Arc::new(OnceLock::new());
        let desk = Desk {
            book: Correlation::new(),
            decided: Vec::new(),
            failed: Vec::new(),
            fault: Arc::clone(&fault),
            connection,
        };
        tokio::spawn(run(channel, inbox, desk, links));
        Ok(Self { jobs, fault })
    }

    /// A place for one publish. Waits while the task is busy.
    ///
    /// # Errors
    /// The channel is dead.
    pub(crate) async fn reserve(&self) -> Result<mpsc::Permit<'_, Job>> {
        self.jobs.reserve().await.map_err(|_| self.death())
    }

    /// A place for one publish, if there is one now.
    pub(crate) fn try_reserve(&self) -> Option<mpsc::Permit<'_, Job>> {
        self.jobs.try_reserve().ok()
    }

    /// Publishes a record of our own and waits for its fate.
    pub(crate) async fn publish(
        &self,
        exchange: &str,
        key: &str,
        payload: Bytes,
        properties: BasicProperties,
        headers: FieldTable,
    ) -> Result<Outcome> {
        let (reply, answer) = oneshot::channel();
        let (exchange, key) = (exchange.into(), key.into());
        let job = Job { exchange, key, payload, properties, headers, answer: Answer::Reply(reply) };
        self.reserve().await?.send(job);
        answer.await.unwrap_or_else(|_| Err(self.death().with_fate(Fate::Unknown)))
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.jobs.is_closed()
    }

    /// Why the channel died.
    pub(crate) fn death(&self) -> Error {
        self.fault.get().cloned().unwrap_or_else(gone)
    }
}

fn gone() -> Error {
    Error::disconnected("the publishing channel is closed; the client opens a new one").with_backend(BACKEND)
}

/// What came back from one publish.
struct Flight {
    seq: u64,
    answer: Answer,
    result: Result<Confirmation, Failure>,
}

enum Failure {
    /// The channel was dead before the first frame.
    NotSent,
    /// The channel died; nobody knows.
    Lost(lapin::Error),
}

async fn transmit(channel: &Channel, seq: u64, job: Job) -> Flight {
    let Job { exchange, key, payload, properties, mut headers, answer } = job;
    if !channel.status().connected() {
        return Flight { seq, answer, result: Err(Failure::NotSent) };
    }
    headers.insert(SEQUENCE.into(), AMQPValue::LongLongInt(seq.cast_signed()));
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let handed =
        channel.basic_publish(exchange, key, options, &payload, properties.with_headers(headers)).await;
    let result = match handed {
        Ok(confirm) => confirm.await,
        Err(e) => Err(e),
    };
    Flight { seq, answer, result: result.map_err(Failure::Lost) }
}

/// State of the task beside the futures in flight.
struct Desk {
    book: Correlation<Answer>,
    decided: Vec<(Answer, Outcome)>,
    /// Told only when no further publish can be handed over.
    failed: Vec<(Answer, Error)>,
    fault: Arc<OnceLock<Error>>,
    connection: ConnectionStatus,
}

impl Desk {
    fn land(&mut self, flight: Flight) {
        match flight.result {
            Ok(Confirmation::Ack(carried)) => self.confirm(flight.seq, true, carried, flight.answer),
            Ok(Confirmation::Nack(carried)) => self.confirm(flight.seq, false, carried, flight.answer),
            Ok(Confirmation::NotRequested) => {
                flight.answer.give(Err(Error::new(Kind::Unexpected, "the channel is not in confirm mode")
                    .with_fate(Fate::Unknown)));
            }
            Err(Failure::NotSent) => {
                let fault = self.fault.get_or_init(gone).clone();
                self.failed.push((flight.answer, fault));
            }
            Err(Failure::Lost(e)) => {
                let why = error::whose(error::unknown(&e), &self.connection);
                self.fault.get_or_init(|| why.clone().with_fate(Fate::Rejected));
                self.failed.push((flight.answer, why));
            }
        }
    }

    fn confirm(
        &mut self,
        seq: u64,
        acked: bool,
        carried: Option<lapin::message::BasicReturnMessage>,
        answer: Answer,
    ) {
        let carried = carried.and_then(|m| sequence_of(m.properties.headers().as_ref()?));
        self.book.resolve(seq, acked, carried, answer, &mut self.decided);
    }

    fn decide(&mut self, idle: bool) {
        self.book.drained(idle, &mut self.decided);
        for (answer, outcome) in self.decided.drain(..) {
            answer.give(Ok(outcome));
        }
    }

    fn is_dead(&self) -> bool {
        self.fault.get().is_some()
    }

    /// The broker reads no more. Whoever is in flight hears that nobody knows, as its ticket is dropped.
    fn abandon(self, mut inbox: mpsc::Receiver<Job>) {
        let fault = self.fault.get_or_init(|| gone().with_fate(Fate::Rejected));
        inbox.close();
        while let Ok(job) = inbox.try_recv() {
            job.answer.refuse(fault.clone());
        }
    }
}

fn sequence_of(headers: &FieldTable) -> Option<u64> {
    match headers.inner().get(SEQUENCE) {
        Some(AMQPValue::LongLongInt(seq)) => Some(seq.cast_unsigned()),
        _ => None,
    }
}

/// Tells when nothing has been confirmed for a suspicious time.
struct Vigil {
    look: Pin<Box<Sleep>>,
    /// Looks in a row that saw nothing land.
    silent: u32,
}

impl Vigil {
    fn new() -> Self {
        Self { look: Box::pin(sleep(LOOK)), silent: 0 }
    }

    fn landed(&mut self) {
        self.silent = 0;
    }

    /// Ready when publishes have waited for too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.look.as_mut().poll(cx).is_ready() {
            self.look.as_mut().reset(Instant::now() + LOOK);
            self.silent += 1;
            if self.silent > SILENT_LOOKS {
                self.silent = 0;
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

async fn run(channel: Channel, mut inbox: mpsc::Receiver<Job>, mut desk: Desk, links: Weak<Links>) {
    let mut flying = Flying::new();
    let mut vigil = Vigil::new();
    let mut taken = Vec::with_capacity(BATCH);
    let (mut seq, mut open) = (0, true);
    while open || !flying.is_empty() {
        let silent = poll_fn(|cx| {
            let landed = flying.land(cx, |flight| desk.land(flight));
            if open
                && flying.len() < IN_FLIGHT
                && let Poll::Ready(count) = inbox.poll_recv_many(cx, &mut taken, BATCH)
            {
                open = count > 0;
                for job in taken.drain(..) {
                    seq += 1;
                    flying.push(transmit(&channel, seq, job));
                }
                // The first poll of new publishes, in their order, is their hand-over.
                flying.land(cx, |flight| desk.land(flight));
                return Poll::Ready(false);
            }
            if landed || flying.is_empty() {
                vigil.landed();
            }
            match landed {
                true => Poll::Ready(false),
                false => vigil.poll(cx).map(|()| true),
            }
        })
        .await;
        if silent
            && let Some(links) = links.upgrade()
            && links.is_mute().await
        {
            return desk.abandon(inbox);
        }
        if desk.is_dead() {
            inbox.close();
            desk.failed.drain(..).for_each(|(answer, e)| answer.give(Err(e)));
        } else {
            desk.decide(flying.is_empty());
        }
    }
    for answer in desk.book.abandon() {
        answer.give(Err(gone().with_fate(Fate::Unknown)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mq_core::driver::Target;

    #[test]
    fn outcomes_by_meaning() {
        let queue = Meaning::Target(Target::queue("q"));
        assert_eq!(queue.receipt(Ok(Outcome::Stored)).unwrap(), Receipt::ONE);
        assert_eq!(queue.receipt(Ok(Outcome::Returned)).unwrap_err().kind(), Kind::NotFound);
        let refused = queue.receipt(Ok(Outcome::Refused)).unwrap_err();
        assert_eq!((refused.kind(), refused.fate()), (Kind::RateLimited, Fate::Rejected));
        let loose = Meaning::Exchange { mandatory: None };
        assert!(loose.receipt(Ok(Outcome::Returned)).unwrap().routed.is_none());
        let strict = Meaning::Exchange { mandatory: Some("m".into()) };
        assert_eq!(strict.receipt(Ok(Outcome::Returned)).unwrap_err().kind(), Kind::Unroutable);
    }

    #[tokio::test]
    async fn a_producer_is_settled_when_every_publish_is_answered() {
        let handed = Arc::new(Handed::default());
        handed.settled().await;
        let (a, b) = (handed.one(), handed.one());
        drop(a);
        let waiting = tokio::spawn({
            let handed = Arc::clone(&handed);
            async move { handed.settled().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(b);
        waiting.await.unwrap();
    }
}

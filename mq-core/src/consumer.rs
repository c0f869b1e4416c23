//! Receiving from a queue or topic.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::deadline::within;
use crate::delivery::Delivery;
use crate::driver::{Control, Flushed, Incoming, Mode, Sort, Start};
use crate::error::{Error, Kind, Result};
use crate::event::ClientEvent;
use crate::turn;
use crate::{Ability, DeathReason};

pub(crate) mod arrivals;
pub(crate) mod arrive;
mod builder;
pub(crate) mod core;
pub(crate) mod credit;
pub(crate) mod fence;
pub(crate) mod flusher;
pub(crate) mod places;
pub(crate) mod pump;
pub(crate) mod reopening;
pub(crate) mod returning;
pub(crate) mod session;
pub(crate) mod settle;
pub(crate) mod stash;
mod watched;

pub use self::builder::ConsumerBuilder;

use self::arrivals::Arrivals;
use self::core::ConsumerCore;
use self::reopening::Reopening;
use self::session::Session;

/// Receives messages, each as a [`Delivery`] to settle exactly once.
///
/// After a loss of the connection the consumer opens itself again: what it held becomes void and comes again.
#[derive(Debug)]
pub struct Consumer {
    pub(crate) core: Arc<ConsumerCore>,
    session: Option<Arc<Session>>,
    reopening: Reopening,
    buffer: VecDeque<Incoming>,
    arrivals: Arrivals,
    /// A batch that the run loop is collecting: here it survives a cancelled wait.
    pub(crate) batch: Option<Vec<Delivery>>,
    /// Sessions in a row that died without a message.
    deaths: u32,
    /// A browse has shown all there was.
    shown: bool,
}

impl Consumer {
    /// The next message; waits for it as long as the consumer lives. [`recv_for`](Self::recv_for) waits for a
    /// time only.
    ///
    /// # Errors
    /// [`NotFound`](Kind::NotFound) when the queue or topic is gone, [`Closed`](Kind::Closed) when the client is.
    /// Losses of the connection are no errors: the consumer resumes by itself. A browse that has shown all there
    /// was ends with `Closed` too; [`recv_for`](Self::recv_for) gives `None` then, at once.
    ///
    /// # Cancel safety
    /// No message is lost.
    pub async fn recv(&mut self) -> Result<Delivery> {
        loop {
            if let Some(delivery) = self.next_ready() {
                return Ok(delivery);
            }
            // A driver that always has something, or never waits, must not keep other tasks of this thread from running.
            turn::passed(self.arrivals.count()).await;
            if !self.fill_now() {
                // Boxed, so that the common case does not carry the size of the rare one.
                Box::pin(self.fill()).await?;
            }
        }
    }

    /// The next message, or `None` if none came within this time.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// No message is lost.
    pub async fn recv_for(&mut self, at_most: Duration) -> Result<Option<Delivery>> {
        match tokio::time::timeout(at_most, self.recv()).await {
            Ok(Err(_)) if self.shown => Ok(None),
            Ok(result) => result.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Up to `max` messages: waits for the first one, at most this long, and takes what is there then.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// No message is lost.
    pub async fn recv_batch(&mut self, max: usize, at_most: Duration) -> Result<Vec<Delivery>> {
        let mut batch = Vec::new();
        if max == 0 {
            return Ok(batch);
        }
        let Some(first) = self.recv_for(at_most).await? else { return Ok(batch) };
        batch.push(first);
        while batch.len() < max {
            let Some(delivery) = self.next_ready() else { break };
            batch.push(delivery);
        }
        Ok(batch)
    }

    /// Adds what is here already, until there are `max`. Dropped by a run that is given up, it comes again uncounted.
    pub(crate) fn take_ready(&mut self, into: &mut Vec<Delivery>, max: usize) {
        while into.len() < max {
            let Some(mut delivery) = self.next_ready() else {
                if self.fill_now() {
                    continue;
                }
                return;
            };
            delivery.return_uncounted();
            into.push(delivery);
        }
    }

    /// The next delivery that is here already.
    #[inline]
    fn next_ready(&mut self) -> Option<Delivery> {
        let session = self.session.as_ref()?;
        if self.arrivals.is_empty() && self.buffer.is_empty() && session.stash.is_none() {
            return None;
        }
        // What a lost connection has left behind is void, and comes again by itself: nobody needs to work on it.
        if self.core.is_paused() || session.is_lost() {
            return None;
        }
        while let Some(incoming) = self.arrivals.pop() {
            if let Some(delivery) = session.accept(incoming) {
                return Some(delivery);
            }
        }
        self.next_buffered()
    }

    /// The next delivery of those that were sorted.
    fn next_buffered(&mut self) -> Option<Delivery> {
        let session = self.session.as_ref()?;
        if session.stash.is_some() {
            return session.next_in_order(&mut self.buffer);
        }
        while let Some(mut incoming) = self.buffer.pop_front() {
            if let Some(delivery) = session.accept(&mut incoming) {
                return Some(delivery);
            }
        }
        None
    }

    /// Takes what the driver has at hand. False if it has nothing, or something that takes more to sort.
    #[inline]
    fn fill_now(&mut self) -> bool {
        let Some(session) = &self.session else { return false };
        let may = !self.shown && !self.core.is_paused() && !session.is_lost();
        let filled = may && session.fill_now(&mut self.arrivals);
        if filled {
            self.deaths = 0;
        }
        filled
    }

    /// Brings at least one arrival, or a new session.
    async fn fill(&mut self) -> Result<()> {
        let Some(session) = &self.session else {
            return self.reopen().await.map_err(|e| self.core.explain(e));
        };
        if self.shown {
            return Err(self.core.explain(Error::closed("browse, which has shown all there was,")));
        }
        if session.is_lost() {
            self.forget();
            return Ok(());
        }
        let browsing = matches!(self.core.options.mode, Mode::Browse) && session.credit.free() > 0;
        let filled = if self.core.is_paused() {
            self.arrivals.move_to(&mut self.buffer);
            session.listen(self.arrivals.list(), &mut self.buffer).await
        } else {
            session.fill(&mut self.arrivals, &mut self.buffer).await
        };
        self.shown = browsing && filled.is_ok() && self.buffer.is_empty() && self.arrivals.is_empty();
        let Err(error) = filled else {
            self.deaths = 0;
            return Ok(());
        };
        let Some(session) = self.forget() else { return Ok(()) };
        if error.kind() == Kind::Disconnected {
            // One that dies again and again without a message is opened more and more rarely.
            self.deaths += 1;
            let pause = self.core.client.inner.options.reconnect.next_pause(self.deaths);
            self.core.client.inner.link.moved_on(session.generation, pause).await;
            return Ok(());
        }
        if error.kind() == Kind::NotFound && self.core.recreates() {
            return Ok(());
        }
        Err(self.core.explain(error))
    }

    /// Ends the session, and drops what has arrived of it.
    fn forget(&mut self) -> Option<Arc<Session>> {
        self.buffer.clear();
        self.arrivals.clear();
        let session = self.session.take()?;
        session.kill();
        session.flusher.give_up();
        Some(session)
    }

    /// Opens the consumer on the live connection, as often as it takes.
    async fn reopen(&mut self) -> Result<()> {
        let first = !self.core.opened_before();
        let session = self.reopening.session(&self.core).await?;
        if !first {
            let name = self.core.client.inner.short_name(&self.core.options.source.name).to_owned();
            self.core.client.inner.link.events.emit(ClientEvent::ConsumerResumed(name));
        }
        self.buffer.clear();
        self.arrivals.clear();
        self.session = Some(session);
        Ok(())
    }

    /// No further delivery until [`resume`](Self::resume), also of what has arrived already and after a loss of the
    /// connection. What was delivered can be settled.
    ///
    /// # Errors
    /// The consumer goes on as before.
    ///
    /// # Cancel safety
    /// It is paused or not.
    pub async fn pause(&mut self) -> Result<()> {
        self.control(Control::Pause).await?;
        self.core.set_paused(true);
        Ok(())
    }

    /// Goes on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// The consumer stays paused.
    ///
    /// # Cancel safety
    /// It is resumed or not.
    pub async fn resume(&mut self) -> Result<()> {
        self.control(Control::Resume).await?;
        self.core.set_paused(false);
        Ok(())
    }

    /// Reads on from another position, on these partitions or (empty) on all that are assigned here. What is held
    /// from them becomes void; the group's stored offsets follow.
    ///
    /// # Errors
    /// [`Unsupported`](Kind::Unsupported) where the backend cannot; the position did not change.
    ///
    /// # Cancel safety
    /// The position changed or not.
    pub async fn seek(&mut self, to: Start, partitions: &[u32]) -> Result<()> {
        self.core.client.capabilities().check(Ability::Seek)?;
        if self.core.options.source.sort != Sort::Topic {
            return Err(self
                .core
                .explain(Error::unsupported("a queue has no positions to seek; use a topic")));
        }
        let deadline = self.core.client.inner.options.admin_deadline;
        let sought = within("seek", deadline, self.seek_in_session(to, partitions)).await;
        sought.map_err(|e| self.core.explain(e))
    }

    async fn seek_in_session(&mut self, to: Start, partitions: &[u32]) -> Result<()> {
        loop {
            let Some(session) = self.session.clone() else {
                self.reopen().await?;
                continue;
            };
            session.seek(to, partitions).await?;
            self.arrivals.move_to(&mut self.buffer);
            session.drop_sought(&mut self.buffer, partitions);
            return Ok(());
        }
    }

    async fn control(&mut self, control: Control) -> Result<()> {
        let deadline = self.core.client.inner.options.admin_deadline;
        let call = async {
            loop {
                let Some(session) = &self.session else {
                    self.reopen().await?;
                    continue;
                };
                return session.driver.control(control).await;
            }
        };
        within("control consumer", deadline, call).await.map_err(|e| self.core.explain(e))
    }

    /// Pushes recorded acks out and says how far the broker answers for them.
    ///
    /// # Errors
    /// The acks may not have reached the broker; their messages may come again. Told once also of acks that were lost
    /// with an earlier connection, before they could be pushed out.
    ///
    /// # Cancel safety
    /// Recorded acks stay recorded.
    pub async fn flush_acks(&self) -> Result<Flushed> {
        let flushed = match &self.session {
            Some(session) => session.flush().await.map_err(|e| self.core.explain(e))?,
            None => Flushed::Taken,
        };
        self.core.check_lost_acks().map(|()| flushed)
    }

    /// Messages held unsettled now, those waiting inside the consumer included.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.session.as_ref().map_or(0, |s| s.credit.held())
    }

    /// Flushes acks, gives back what is held (uncounted) and leaves. Deliveries in other hands become void.
    ///
    /// # Errors
    /// What was not given back comes again when the broker notices, and so does what was acknowledged over a connection
    /// that was lost before the acks were pushed out, if there is no connection at the close. Where there is one, acks
    /// that an earlier one took along are told by [`flush_acks`](Self::flush_acks) alone.
    ///
    /// # Cancel safety
    /// The close goes on in the background.
    pub async fn close(mut self) -> Result<()> {
        self.leave().await
    }

    /// As [`close`](Self::close).
    pub(crate) async fn leave(&mut self) -> Result<()> {
        self.buffer.clear();
        let Some(session) = self.session.take() else { return self.core.check_lost_acks() };
        let closing = tokio::spawn(async move { session.close().await });
        let closed = closing.await.unwrap_or_else(|e| Err(crate::client::panicked(&e)));
        // What an earlier connection took along has come again since, or will: it is no failure of this close.
        closed.map_err(|e| self.core.explain(e))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        let runtime = session.runtime.clone();
        drop(runtime.spawn(async move { session.close().await }));
    }
}

/// Why a message is not delivered but dead-lettered.
pub(crate) type Unfit = (DeathReason, &'static str);

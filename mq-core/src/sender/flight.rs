//! A message on its way: its answer, or what happens when none comes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::{Call, Role, Sender};
use crate::alarm::Alarm;
use crate::deadline::Budget;
use crate::driver::erased::Boxed;
use crate::driver::{Item, Pending, Receipt, settled};
use crate::error::{Error, Fate, Kind, Result};

/// A message that was handed over.
#[derive(Debug)]
pub(crate) enum Confirming {
    /// The broker has answered already.
    Done(Result<Receipt>),
    /// The answer is on its way.
    InFlight(Box<Flight>),
    /// As one of these, and layers hear of its end.
    Watched(Box<(Self, Call)>),
}

impl Confirming {
    /// Waits for the answer; sends again with the same id while the outcome is unknown and time is left.
    pub(crate) fn confirmed(self) -> Confirmed {
        match self {
            Self::Done(result) => Confirmed(Wait::Done(Some(result))),
            Self::InFlight(flight) => Confirmed(Wait::Flying(flight)),
            Self::Watched(watched) => {
                let (confirming, call) = *watched;
                Confirmed(Wait::Watched(Box::new((confirming.confirmed(), call))))
            }
        }
    }
}

/// A message whose answer is on its way, and what it takes to send it again.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(super) sender: Arc<Sender>,
    pub(super) budget: Budget,
    pub(super) alarm: Alarm,
    pub(super) pending: Pending,
    /// For a re-send; `None` for a send that must not be repeated.
    pub(super) copy: Option<Item>,
    pub(super) generation: u64,
    pub(super) role: RoleName,
    /// An earlier transmission may be stored: no later refusal can say that the message is not.
    pub(super) maybe_stored: bool,
}

/// The role that took the message: told when it turns out to be dead.
pub(super) struct RoleName(pub(super) Role);

impl fmt::Debug for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Role")
    }
}

/// What an answer came to.
enum Landed {
    Final(Result<Receipt>),
    /// Nobody knows whether it was stored, and there is time to send it again.
    Lost(Item, Error),
}

/// Waits for the answer of a message that was handed over.
///
/// The usual case polls the flight where it lies. Only a lost confirm makes a future, for the re-send.
pub(crate) struct Confirmed(Wait);

enum Wait {
    Done(Option<Result<Receipt>>),
    Flying(Box<Flight>),
    Again(Boxed<'static, Result<Confirming>>),
    Watched(Box<(Confirmed, Call)>),
}

impl Future for Confirmed {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            self.0 = match &mut self.0 {
                Wait::Done(result) => {
                    return Poll::Ready(result.take().unwrap_or_else(|| Err(Error::closed("confirmation"))));
                }
                Wait::Flying(flight) => {
                    let landed = ready!(flight.poll_landed(cx));
                    let Wait::Flying(flight) = std::mem::replace(&mut self.0, Wait::Done(None)) else {
                        continue;
                    };
                    match landed {
                        Landed::Final(result) => return Poll::Ready(result),
                        Landed::Lost(item, why) => Wait::Again(Box::pin(flight.again(item, why))),
                    }
                }
                Wait::Watched(watched) => {
                    let (confirmed, call) = &mut **watched;
                    let result = ready!(Pin::new(confirmed).poll(cx));
                    call.tell(Some(&result));
                    Wait::Done(Some(result))
                }
                Wait::Again(again) => match ready!(again.as_mut().poll(cx)) {
                    Ok(confirming) => confirming.confirmed().0,
                    Err(error) => Wait::Done(Some(Err(error))),
                },
            };
        }
    }
}

impl Flight {
    fn poll_landed(&mut self, cx: &mut Context<'_>) -> Poll<Landed> {
        let answer = match Pin::new(&mut self.pending).poll(cx) {
            Poll::Ready(answer) => settled(answer),
            Poll::Pending => {
                let until = self.budget.until();
                ready!(self.alarm.poll(&self.sender.timers, until, cx));
                Err(self.budget.error())
            }
        };
        self.alarm.end(&self.sender.timers);
        Poll::Ready(match answer {
            Ok(receipt) => Landed::Final(Ok(receipt)),
            Err(error) => self.failed(error),
        })
    }

    #[cold]
    fn failed(&mut self, error: Error) -> Landed {
        let lost = error.kind() == Kind::Disconnected;
        if let Some(item) = self.copy.take().filter(|_| lost && !self.budget.is_over()) {
            return Landed::Lost(item, error);
        }
        let error = if self.maybe_stored { error.with_fate(Fate::Unknown) } else { error };
        Landed::Final(Err(self.sender.refused(error, &self.role.0)))
    }

    /// Sends the same message again on the next connection.
    async fn again(self: Box<Self>, item: Item, why: Error) -> Result<Confirming> {
        let Self { sender, mut budget, generation, role, maybe_stored, .. } = *self;
        sender.discard(&role.0);
        let pause = sender.base.options.reconnect.next_pause(1);
        sender.base.link.moved_on_in(&mut budget, generation, pause).await;
        // From here on a failure leaves open what became of the first transmission.
        let maybe_stored = maybe_stored || why.is_unknown();
        let unknown = |e: Error| e.with_fate(if maybe_stored { Fate::Unknown } else { Fate::Rejected });
        let permit = sender.permit(&item, &mut budget).await.map_err(|e| unknown(sender.explain(e)))?;
        match sender.hand_over_within(item, permit, budget, true).await.map_err(unknown)? {
            Confirming::Done(answer) => Ok(Confirming::Done(answer.map_err(unknown))),
            Confirming::InFlight(mut flight) => {
                flight.maybe_stored = maybe_stored;
                Ok(Confirming::InFlight(flight))
            }
            // A call is told around all its transmissions.
            watched @ Confirming::Watched(_) => Ok(watched),
        }
    }
}

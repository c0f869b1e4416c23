//! The supervised connection: one is live at a time, and it comes back after a loss.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::deadline::{Budget, within};
use crate::driver::Event;
use crate::driver::erased::{DynConnection, DynConnector};
use crate::error::{Error, Kind, Result, Status};
use crate::event::{ClientEvent, Hub};

/// Permanent errors in a row after which a reconnect gives up, if they went on for [`GIVE_UP_TIME`]. A broker that is
/// still starting may refuse logins that it accepts later.
const GIVE_UP_AFTER: u32 = 5;
/// A minute and more of nothing but permanent errors is no start of a broker.
const GIVE_UP_TIME: Duration = Duration::from_secs(120);

/// Longest pause between two tries of the first connect, whose deadline is short.
const FIRST_CAP: Duration = Duration::from_secs(1);

/// The state of the connection.
#[derive(Clone)]
pub(crate) enum State {
    Up(u64, Arc<dyn DynConnection>),
    Down(Error),
    /// For good: closed by its owner, or given up.
    Ended(Error),
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(generation, _) => write!(f, "Up({generation})"),
            Self::Down(e) => write!(f, "Down({e})"),
            Self::Ended(e) => write!(f, "Ended({e})"),
        }
    }
}

/// What is done with each new connection before anyone may use it.
pub(crate) type Restore =
    Box<dyn Fn(Arc<dyn DynConnection>) -> crate::driver::erased::Boxed<'static, Result<()>> + Send + Sync>;

/// Holds the live connection and tells who waits for it.
pub(crate) struct Link {
    state: watch::Sender<State>,
    /// The number of the live connection; 0 while there is none. Read on every send.
    live: AtomicU64,
    pub(crate) events: Hub,
    connector: Arc<dyn DynConnector>,
    connect_deadline: Duration,
    backoff: Backoff,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

impl Link {
    /// Connects for the first time. A temporary error is tried again until the deadline, any other is the caller's.
    pub(crate) async fn connect(
        connector: Arc<dyn DynConnector>,
        connect_deadline: Duration,
        backoff: Backoff,
    ) -> Result<Self> {
        let connection = first(&*connector, Budget::new("connect", connect_deadline), &backoff).await?;
        let link = Self {
            state: watch::Sender::new(State::Up(1, connection)),
            live: AtomicU64::new(1),
            events: Hub::new(),
            connector,
            connect_deadline,
            backoff,
        };
        link.events.emit(ClientEvent::Connected(1));
        Ok(link)
    }

    /// The number of the live connection; 0 while there is none.
    pub(crate) fn generation(&self) -> u64 {
        self.live.load(Ordering::Acquire)
    }

    /// The live connection, if there is one.
    pub(crate) fn current(&self) -> Option<Arc<dyn DynConnection>> {
        if let State::Up(_, connection) = &*self.state.borrow() { Some(Arc::clone(connection)) } else { None }
    }

    /// The live connection, or why there is none.
    pub(crate) fn live(&self) -> Result<Arc<dyn DynConnection>> {
        match &*self.state.borrow() {
            State::Up(_, connection) => Ok(Arc::clone(connection)),
            State::Down(error) | State::Ended(error) => Err(error.clone()),
        }
    }

    /// The live connection; waits for it within the budget.
    pub(crate) async fn connection(&self, budget: &mut Budget) -> Result<(u64, Arc<dyn DynConnection>)> {
        let mut state = self.state.subscribe();
        loop {
            let why = match &*state.borrow_and_update() {
                State::Up(generation, connection) => return Ok((*generation, Arc::clone(connection))),
                State::Ended(error) => return Err(error.clone()),
                State::Down(error) => error.clone(),
            };
            match budget.run(state.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Error::closed("client")),
                Err(timeout) => {
                    // Nothing was sent while there was no connection.
                    return Err(timeout
                        .with_fate(crate::Fate::Rejected)
                        .with_context("last", why.to_string()));
                }
            }
        }
    }

    /// Waits until connection number `generation` is not the live one any more, or a time has passed.
    pub(crate) async fn moved_on(&self, generation: u64, at_most: Duration) {
        let mut state = self.state.subscribe();
        let gone = state.wait_for(|s| !matches!(s, State::Up(g, _) if *g == generation));
        // Not moving on in time is an answer too.
        let _ = tokio::time::timeout(at_most, gone).await;
    }

    /// As [`moved_on`](Self::moved_on), and no longer than there is time left for the call.
    pub(crate) async fn moved_on_in(&self, budget: &mut Budget, generation: u64, at_most: Duration) {
        // The call itself finds out that its time is over.
        let _ = budget.run(self.moved_on(generation, at_most)).await;
    }

    /// Waits until the link has ended for good.
    pub(crate) async fn ended(&self) -> Error {
        let mut state = self.state.subscribe();
        match state.wait_for(|s| matches!(s, State::Ended(_))).await.as_deref() {
            Ok(State::Ended(error)) => error.clone(),
            _ => Error::closed("client"),
        }
    }

    fn end(&self, error: Error) -> Option<Arc<dyn DynConnection>> {
        self.live.store(0, Ordering::Release);
        match self.state.send_replace(State::Ended(error)) {
            State::Up(_, connection) => Some(connection),
            _ => None,
        }
    }

    /// Ends the link; the caller closes what is returned.
    pub(crate) fn close(&self) -> Option<Arc<dyn DynConnection>> {
        let connection = self.end(Error::closed("client"));
        self.events.emit(ClientEvent::Closed);
        connection
    }

    fn is_ended(&self) -> bool {
        matches!(*self.state.borrow(), State::Ended(_))
    }
}

/// The first connection: a broker that is starting, or being restarted, refuses it for a while.
async fn first(
    connector: &dyn DynConnector,
    mut budget: Budget,
    backoff: &Backoff,
) -> Result<Arc<dyn DynConnection>> {
    let mut tries = 0u32;
    let mut last = None;
    loop {
        tries += 1;
        let error = match budget.run(connector.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
            // What was said before the deadline tells more.
            Err(timeout) => return Err(last.unwrap_or(timeout)),
        };
        let pause = backoff.next_pause(tries).min(FIRST_CAP);
        if !error.is_temporary() || Instant::now() + pause >= budget.until() {
            return Err(error);
        }
        last = Some(error);
        tokio::time::sleep(pause).await;
    }
}

/// Watches the connection and replaces it when it is lost. Runs until the link ends.
pub(crate) async fn supervise(link: Arc<Link>, restore: Restore) {
    let mut generation = 1;
    while let Some(connection) = link.current() {
        let lost = tokio::select! {
            error = watch_events(&*connection, &link.events) => error,
            _ = link.ended() => return,
        };
        link.live.store(0, Ordering::Release);
        link.state.send_if_modified(|s| {
            let up = matches!(s, State::Up(..));
            if up {
                *s = State::Down(lost.clone());
            }
            up
        });
        link.events.emit(ClientEvent::Lost(lost));
        // Whatever the native client still holds is let go; a dead one may take its time.
        drop(tokio::spawn(async move { within("close", Duration::from_secs(5), connection.close()).await }));
        generation += 1;
        tokio::select! {
            () = reconnect(&link, &restore, generation) => {}
            _ = link.ended() => return,
        }
    }
}

/// Forwards events until the connection is lost.
async fn watch_events(connection: &dyn DynConnection, events: &Hub) -> Error {
    loop {
        match connection.next_event().await {
            Event::Lost(error) => return error,
            Event::Interrupted(error) => events.emit(ClientEvent::Lost(error)),
            Event::Restored => events.emit(ClientEvent::Connected(0)),
            Event::Blocked(reason) => events.emit(ClientEvent::Blocked(reason)),
            Event::Unblocked => events.emit(ClientEvent::Unblocked),
            Event::Hindered(error) => events.emit(ClientEvent::Hindered(error)),
            Event::Undelivered(id, why) => events.emit(ClientEvent::Undelivered(id, why)),
            Event::Parked(id) => events.emit(ClientEvent::Parked(id)),
        }
    }
}

async fn reconnect(link: &Link, restore: &Restore, generation: u64) {
    let (mut tries, mut refused) = (0u32, Refused::default());
    while !link.is_ended() {
        tries += 1;
        match attempt(link, restore).await {
            Ok(connection) => {
                link.state.send_if_modified(|s| {
                    let go = !matches!(s, State::Ended(_));
                    if go {
                        *s = State::Up(generation, connection);
                        link.live.store(generation, Ordering::Release);
                    }
                    go
                });
                link.events.emit(ClientEvent::Connected(generation));
                return;
            }
            Err(error) => {
                if refused.for_good(&error) {
                    link.events.emit(ClientEvent::Failed(error.clone()));
                    link.end(error);
                    return;
                }
                let pause = link.backoff.next_pause(tries);
                link.state.send_if_modified(|s| {
                    let down = matches!(s, State::Down(_));
                    if down {
                        *s = State::Down(error.clone());
                    }
                    down
                });
                link.events.emit(ClientEvent::ConnectFailed(error, pause));
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Permanent errors in a row.
#[derive(Debug, Default)]
struct Refused {
    times: u32,
    since: Option<Instant>,
}

impl Refused {
    /// Counts an error; true if it is time to give up.
    fn for_good(&mut self, error: &Error) -> bool {
        if error.status() != Status::Permanent {
            *self = Self::default();
            return false;
        }
        self.times += 1;
        let since = *self.since.get_or_insert_with(Instant::now);
        self.times >= GIVE_UP_AFTER && since.elapsed() >= GIVE_UP_TIME
    }
}

async fn attempt(link: &Link, restore: &Restore) -> Result<Arc<dyn DynConnection>> {
    let connection = within("connect", link.connect_deadline, link.connector.connect()).await?;
    within("restore", link.connect_deadline, restore(Arc::clone(&connection))).await.map_err(|e| {
        // A conflict while restoring says nothing about credentials: try again.
        if e.kind() == Kind::Timeout { e.with_status(Status::Temporary) } else { e }
    })?;
    Ok(connection)
}

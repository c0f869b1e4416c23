//! Channel numbers. The client never forgives a number whose channel the broker has closed: whoever gets it next, when
//! all numbers have been used once, is told the old refusal at once. Each look for an object that is not there costs
//! a number, so a long-lived connection meets them again.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lapin::Channel;
use mq_core::{Error, Kind, Result};
use tokio::sync::Notify;

use crate::error;

/// Channels of a connection, unless the broker is configured otherwise.
const NUMBERS: u32 = 2047;
/// With so many numbers gone, a connection without a free one is worn out rather than busy.
const MANY: u32 = NUMBERS / 4;
/// After so many refusals, questions that may be refused go another way.
const SCARCE: u32 = 256;

/// What is known about the numbers of one client's connections.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    refused: AtomicU32,
    spoiled: AtomicU32,
    worn: Notify,
}

impl Numbers {
    /// A channel with a number that serves.
    pub(crate) async fn channel(
        &self,
        connection: &lapin::Connection,
        operation: &'static str,
        limit: Duration,
    ) -> Result<Channel> {
        for _ in 0..NUMBERS {
            let error = match error::within(operation, limit, connection.create_channel()).await {
                Ok(channel) => return Ok(channel),
                Err(error) => error::whose(error, connection.status()),
            };
            if !self.is_old_refusal(&error, connection.status().connected()) {
                return Err(error);
            }
        }
        self.worn.notify_one();
        Err(Error::disconnected("the connection has no channel number left; the client connects again"))
    }

    fn is_old_refusal(&self, error: &Error, connected: bool) -> bool {
        if !connected || error.kind() == Kind::Timeout {
            return false;
        }
        if error.kind() == Kind::RateLimited {
            if self.spoiled.load(Ordering::Relaxed) >= MANY {
                self.worn.notify_one();
            }
            return false;
        }
        self.spoiled.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// The broker has closed a channel: its number is gone.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// True when what is left should be kept for what needs it.
    pub(crate) fn are_scarce(&self) -> bool {
        self.refused.load(Ordering::Relaxed) >= SCARCE
    }

    /// The connections serve no more, for whatever reason.
    pub(crate) fn give_up(&self) {
        self.worn.notify_one();
    }

    /// Waits until the connection is worn out.
    pub(crate) async fn worn(&self) {
        self.worn.notified().await;
    }
}

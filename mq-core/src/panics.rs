//! Panics of the application's own code, where they must not end more than one call of it.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

/// What a panic was raised with.
pub(crate) type Panic = Box<dyn Any + Send>;

/// Polls, and catches a panic.
///
/// What panics is dropped and must not be polled again; what it shared is the user's own, so asserting unwind safety is
/// no worse than a task that panics beside others.
pub(crate) fn poll_caught<F: Future>(
    future: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> Poll<Result<F::Output, Panic>> {
    match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    }
}

/// Runs a future to its end or its panic, also that of making it.
///
/// # Cancel safety
/// As the future's own.
pub(crate) async fn guarded<F: Future>(begin: impl FnOnce() -> F) -> Result<F::Output, Panic> {
    let mut future = pin!(catch_unwind(AssertUnwindSafe(begin))?);
    poll_fn(|cx| poll_caught(future.as_mut(), cx)).await
}

/// The text of a panic, and whose it was.
pub(crate) fn said(whose: &str, panic: &(dyn Any + Send)) -> String {
    let words =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the {whose} panicked: {}", words.unwrap_or("without a text"))
}

//! How a scenario ends.

use std::fmt;

use mq_core::{Error, Kind, Unsettled};

/// What a scenario returns.
pub type Outcome<T = ()> = std::result::Result<T, Failed>;

/// Why a scenario failed.
#[derive(Clone, Debug)]
pub struct Failed {
    pub(crate) text: String,
    /// The kind of mq's error, if it was one that came unexpectedly.
    pub(crate) kind: Option<Kind>,
}

impl Failed {
    /// A failure with a reason.
    #[must_use]
    #[track_caller]
    pub fn new(text: impl Into<String>) -> Self {
        let at = std::panic::Location::caller();
        Self { text: format!("{} ({}:{})", text.into(), short(at.file()), at.line()), kind: None }
    }
}

fn short(file: &str) -> &str {
    file.rsplit_once("/src/").map_or(file, |(_, tail)| tail)
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Error> for Failed {
    #[track_caller]
    fn from(error: Error) -> Self {
        Self { kind: Some(error.kind()), ..Self::new(format!("unexpected error: {error}")) }
    }
}

impl<T> From<Unsettled<T>> for Failed {
    #[track_caller]
    fn from(unsettled: Unsettled<T>) -> Self {
        Self::from(unsettled.error)
    }
}

/// Fails the scenario unless a condition holds.
macro_rules! check {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::Failed::new(format!($($text)+)));
        }
    };
}

/// Fails the scenario unless two values are equal.
macro_rules! check_eq {
    ($left:expr, $right:expr, $($text:tt)+) => {
        match (&$left, &$right) {
            (left, right) => {
                if *left != *right {
                    let what = format!($($text)+);
                    return Err($crate::Failed::new(format!("{what}: got {left:?}, expected {right:?}")));
                }
            }
        }
    };
}

/// Fails the scenario unless a call failed with an error of this kind; gives the error.
macro_rules! check_kind {
    ($result:expr, $kind:expr, $($text:tt)+) => {
        match $result {
            Err(error) => {
                let error: mq_core::Error = error.into();
                if error.kind() != $kind {
                    let what = format!($($text)+);
                    return Err($crate::Failed::new(format!("{what}: expected {:?}, got: {error}", $kind)));
                }
                error
            }
            Ok(_) => {
                let what = format!($($text)+);
                return Err($crate::Failed::new(format!("{what}: expected {:?}, but it succeeded", $kind)));
            }
        }
    };
}

pub(crate) use {check, check_eq, check_kind};

//! Reading inputs: every line with its own terminator, byte for byte.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::severity::{severity, stem};

/// Where lines come from.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Standard,
    /// A text of the program's own, under a name.
    Sample(&'static str, &'static str),
}

impl Input {
    /// The name that stem and output file are made from.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Standard => Path::new("stdin"),
            Self::Sample(name, _) => Path::new(name),
        }
    }

    /// Its size, where that is known beforehand.
    pub(crate) fn size(&self) -> Option<u64> {
        match self {
            Self::File(path) => fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|m| m.len()),
            Self::Standard => None,
            Self::Sample(_, text) => u64::try_from(text.len()).ok(),
        }
    }

    fn open(&self) -> io::Result<Box<dyn BufRead>> {
        Ok(match self {
            Self::File(path) => {
                let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
                Box::new(BufReader::with_capacity(1 << 16, File::open(path).map_err(named)?))
            }
            Self::Standard => Box::new(io::stdin().lock()),
            Self::Sample(_, text) => Box::new(text.as_bytes()),
        })
    }
}

/// A line, or a part of one that is larger than a message may be.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) at: Place,
    pub(crate) key: String,
    pub(crate) body: Bytes,
}

/// Where a line belongs: the order of these is the order of the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// Which input, from 0.
    pub(crate) file: u32,
    /// Which line of it, from 1.
    pub(crate) line: u64,
    /// Which part of the line, from 0.
    pub(crate) part: u32,
}

/// Reads all inputs, one after the other, into a bounded channel: the reader waits for the publisher. Blocks.
pub(crate) fn read_all(inputs: &[Input], largest: usize, lines: &mpsc::Sender<Line>) -> io::Result<()> {
    for (file, input) in (0..).zip(inputs) {
        let mut reader = input.open()?;
        let stem = stem(input.path());
        for line in 1.. {
            let mut text = Vec::new();
            if reader.read_until(b'\n', &mut text)? == 0 {
                break;
            }
            let key = format!("{stem}.{}", severity(&text));
            let text = Bytes::from(text);
            for (part, from) in (0..).zip((0..text.len()).step_by(largest)) {
                let body = text.slice(from..text.len().min(from + largest));
                let next = Line { at: Place { file, line, part }, key: key.clone(), body };
                if lines.blocking_send(next).is_err() {
                    // The publisher has failed; it says why.
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// A file name for each input, no two alike.
pub(crate) fn names(inputs: &[Input]) -> Vec<OsString> {
    let mut taken = HashSet::new();
    let name = |input: &Input| {
        let own = input.path().file_name().unwrap_or_default().to_owned();
        let numbered = (2..).map(|n: u32| {
            let mut name = OsString::from(format!("{n}-"));
            name.push(&own);
            name
        });
        let mut candidates = std::iter::once(own.clone()).chain(numbered);
        let free = candidates.find(|name| taken.insert(name.clone()));
        free.unwrap_or_default()
    };
    inputs.iter().map(name).collect()
}

//! Writing what came.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use bytes::Bytes;

use super::input::Place;

/// Writes what a queue received to `DIR/queues/NAME`, in the order of the inputs. Blocks.
pub(crate) fn write_queue(dir: &Path, name: &str, parts: &mut [(Place, Bytes)]) -> io::Result<()> {
    parts.sort_unstable_by_key(|(at, _)| *at);
    let dir = dir.join("queues");
    fs::create_dir_all(&dir)?;
    write(&dir.join(name), parts.iter().map(|(_, body)| body))
}

/// Puts the inputs together again, as `DIR/files/NAME`, from sorted parts. Blocks.
pub(crate) fn write_files(dir: &Path, names: &[OsString], parts: &[(Place, Bytes)]) -> io::Result<()> {
    let dir = dir.join("files");
    fs::create_dir_all(&dir)?;
    for (file, name) in (0..).zip(names) {
        let from = parts.partition_point(|(at, _)| at.file < file);
        let to = parts.partition_point(|(at, _)| at.file <= file);
        write(&dir.join(name), parts[from..to].iter().map(|(_, body)| body))?;
    }
    Ok(())
}

fn write<'a>(path: &Path, bodies: impl Iterator<Item = &'a Bytes>) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    bodies.into_iter().try_for_each(|body| file.write_all(body))?;
    file.flush()
}

//! AMQP 0-9-1: one connection opened and closed.

use std::net::TcpStream;

use super::wire::{In, Out};
use super::{connect, put, take};
use crate::{Error, Result};

const CONNECTION: u16 = 10;
const START: u16 = 10;
const START_OK: u16 = 11;
const TUNE: u16 = 30;
const TUNE_OK: u16 = 31;
const OPEN: u16 = 40;
const OPEN_OK: u16 = 41;
const CLOSE: u16 = 50;
const CLOSE_OK: u16 = 51;

/// Opens and closes a connection to `/` as guest; returns the version the broker names.
pub(super) fn ask(port: u16) -> Result<String> {
    let mut stream = connect(port)?;
    put(&mut stream, b"AMQP\x00\x00\x09\x01")?;
    let start = expect(&mut stream, START)?;
    let version = version(&start).unwrap_or_else(|| "unknown".into());

    let login = Out::default().u32(0).text8("PLAIN").bytes32(b"\0guest\0guest").text8("en_US");
    call(&mut stream, START_OK, login)?;
    let tune = expect(&mut stream, TUNE)?;
    call(&mut stream, TUNE_OK, Out::default().raw(&tune))?;
    call(&mut stream, OPEN, Out::default().text8("/").text8("").u8(0))?;
    expect(&mut stream, OPEN_OK)?;
    call(&mut stream, CLOSE, Out::default().u16(200).text8("ready").u16(0).u16(0))?;
    expect(&mut stream, CLOSE_OK)?;
    Ok(version)
}

fn call(stream: &mut TcpStream, method: u16, arguments: Out) -> Result<()> {
    let payload = Out::default().u16(CONNECTION).u16(method).raw(&arguments.0);
    // Frame type 1 (method) on channel 0, closed by the frame-end octet.
    put(stream, &Out::default().u8(1).u16(0).bytes32(&payload.0).u8(0xCE).0)
}

/// The arguments of the next frame, which must be `method`.
fn expect(stream: &mut TcpStream, method: u16) -> Result<Vec<u8>> {
    let head = take(stream, 7)?;
    let size = In(&head[3..]).u32()?;
    let body = take(stream, size.saturating_add(1))?;
    let mut fields = In(&body[..body.len() - 1]);
    let (class, found) = (fields.u16()?, fields.u16()?);
    match (class, found) {
        (CONNECTION, CLOSE) => {
            let (code, text) = (fields.u16()?, fields.text8()?);
            Err(Error::new(format_args!("the broker refused: {code} {text}")))
        }
        (CONNECTION, found) if found == method => Ok(fields.0.to_vec()),
        _ => Err(Error::new(format_args!("method {class}.{found} where {CONNECTION}.{method} was due"))),
    }
}

/// The text `version` among the server properties of `connection.start`.
fn version(start: &[u8]) -> Option<String> {
    let mut fields = In(start);
    fields.u16().ok()?;
    let mut table = In(fields.bytes32().ok()?);
    loop {
        let key = table.text8().ok()?;
        match table.u8().ok()? {
            b'S' if key == "version" => {
                return Some(String::from_utf8_lossy(table.bytes32().ok()?).into_owned());
            }
            b'S' | b'F' => drop(table.bytes32().ok()?),
            b't' => drop(table.u8().ok()?),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_behind_nested_tables() {
        let nested = Out::default().text8("basic.nack").u8(b't').u8(1);
        let table = Out::default().text8("capabilities").u8(b'F').bytes32(&nested.0);
        let table = table.text8("version").u8(b'S').bytes32(b"3.10.8");
        let start = Out::default().u8(0).u8(9).bytes32(&table.0);
        assert_eq!(version(&start.0).as_deref(), Some("3.10.8"));
        assert_eq!(version(&start.0[..20]), None);
    }
}

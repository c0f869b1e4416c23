//! Readiness: asking a broker in its own protocol, as a client would.

mod amqp;
mod kafka;
mod wire;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::state::{Node, Product};
use crate::{Error, Result};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Asks once whether `node`, one of `nodes` servers, is ready for clients.
///
/// RabbitMQ: a connection to the virtual host `/` is opened and closed. Kafka: the metadata names
/// all nodes, a topic can be made, and a group can be joined and left. Ends within a few times 5 s.
///
/// # Errors
/// What is not ready yet. Returns the version where the broker tells it.
pub fn ask(product: Product, node: &Node, nodes: usize) -> Result<Option<String>> {
    let port = node.ports.get("client").copied();
    let port = port.ok_or_else(|| Error::new(format_args!("{}: no port for clients", node.name)))?;
    match product {
        Product::Rabbitmq => amqp::ask(port).map(Some),
        Product::Kafka => kafka::ask(port, nodes).map(|()| None),
    }
}

fn connect(port: u16) -> Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1));
    let stream = stream.and_then(|s| {
        s.set_read_timeout(Some(ANSWER))?;
        s.set_write_timeout(Some(ANSWER))?;
        Ok(s)
    });
    stream.map_err(|e| Error::new(format_args!("port {port}: {e}")))
}

/// Reads exactly `len` bytes, of which a broker under test sends few.
fn take(stream: &mut TcpStream, len: u32) -> Result<Vec<u8>> {
    if len > 1 << 20 {
        return Err(Error::new(format_args!("an answer of {len} bytes: not the broker that was started")));
    }
    let mut bytes = Vec::new();
    let got = stream.take(u64::from(len)).read_to_end(&mut bytes);
    match got {
        Ok(n) if u32::try_from(n) == Ok(len) => Ok(bytes),
        Ok(_) => Err(Error::new("the broker closed the connection")),
        Err(error) => Err(Error::new(format_args!("no answer: {error}"))),
    }
}

fn put(stream: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).map_err(|e| Error::new(format_args!("sending: {e}")))
}

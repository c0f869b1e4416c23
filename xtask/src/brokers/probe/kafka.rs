//! Kafka: metadata, a topic, and a group joined and left.

use std::net::TcpStream;

use super::wire::{In, Out};
use super::{connect, put, take};
use crate::{Error, Result};

/// Topic and group that the probe leaves behind.
const NAME: &str = "xtask-ready";

const METADATA: u16 = 3;
const FIND_COORDINATOR: u16 = 10;
const JOIN_GROUP: u16 = 11;
const LEAVE_GROUP: u16 = 13;
const CREATE_TOPICS: u16 = 19;

const TOPIC_ALREADY_EXISTS: u16 = 36;

/// Goes through what a first client would do on a cluster of `nodes`.
pub(super) fn ask(port: u16, nodes: usize) -> Result<()> {
    let mut stream = connect(port)?;
    let controller = metadata(&mut stream, nodes)?;
    let mut stream = connect(controller)?;
    create_topic(&mut stream)?;
    let mut stream = connect(coordinator(&mut stream)?)?;
    let member = join(&mut stream)?;
    leave(&mut stream, &member)
}

/// The port of a node to administer the cluster by, once all `nodes` are there.
fn metadata(stream: &mut TcpStream, nodes: usize) -> Result<u16> {
    let answer = call(stream, METADATA, 1, Out::default().u32(0))?;
    let mut fields = In(&answer);
    let found = fields.u32()?;
    let mut brokers = Vec::new();
    for _ in 0..found.min(100) {
        let id = fields.u32()?;
        fields.text16()?;
        brokers.push((id, port(fields.u32()?)?));
        fields.text16()?;
    }
    if brokers.len() < nodes {
        return Err(Error::new(format_args!("{} of {nodes} nodes are registered", brokers.len())));
    }
    let controller = fields.u32()?;
    let named = brokers.iter().find(|(id, _)| *id == controller);
    named.map(|(_, port)| *port).ok_or_else(|| Error::new("no controller is known yet"))
}

fn create_topic(stream: &mut TcpStream) -> Result<()> {
    // One partition; replication −1 is the broker's default. No assignments, no settings.
    let topic = Out::default().text16(NAME).u32(1).u16(u16::MAX).u32(0).u32(0);
    let answer = call(stream, CREATE_TOPICS, 2, Out::default().u32(1).raw(&topic.0).u32(5000).u8(0))?;
    let mut fields = In(&answer);
    fields.raw(8)?;
    fields.text16()?;
    match fields.u16()? {
        TOPIC_ALREADY_EXISTS => Ok(()),
        code => check("creating a topic", code),
    }
}

fn coordinator(stream: &mut TcpStream) -> Result<u16> {
    let answer = call(stream, FIND_COORDINATOR, 0, Out::default().text16(NAME))?;
    let mut fields = In(&answer);
    check("finding the group's coordinator", fields.u16()?)?;
    fields.u32()?;
    fields.text16()?;
    port(fields.u32()?)
}

fn join(stream: &mut TcpStream) -> Result<String> {
    let timeouts = Out::default().text16(NAME).u32(6000).u32(2000);
    let request = timeouts.text16("").text16("consumer").u32(1).text16("range").bytes32(&[]);
    let answer = call(stream, JOIN_GROUP, 2, request)?;
    let mut fields = In(&answer);
    fields.u32()?;
    check("joining a group", fields.u16()?)?;
    fields.u32()?;
    fields.text16()?;
    fields.text16()?;
    fields.text16()?.ok_or_else(|| Error::new("joining a group: no member id"))
}

fn leave(stream: &mut TcpStream, member: &str) -> Result<()> {
    let answer = call(stream, LEAVE_GROUP, 1, Out::default().text16(NAME).text16(member))?;
    check("leaving a group", In(&answer[4.min(answer.len())..]).u16()?)
}

/// One request and the body of its answer.
fn call(stream: &mut TcpStream, key: u16, version: u16, body: Out) -> Result<Vec<u8>> {
    let request = Out::default().u16(key).u16(version).u32(1).text16("xtask").raw(&body.0);
    put(stream, &Out::default().bytes32(&request.0).0)?;
    let head = take(stream, 4)?;
    let answer = take(stream, In(&head).u32()?)?;
    let mut fields = In(&answer);
    fields.u32()?;
    Ok(fields.0.to_vec())
}

fn check(what: &str, code: u16) -> Result<()> {
    match code {
        0 => Ok(()),
        code => Err(Error::new(format_args!("{what}: Kafka's error {code}"))),
    }
}

fn port(field: u32) -> Result<u16> {
    u16::try_from(field).map_err(|_| Error::new(format_args!("port {field} is no port")))
}

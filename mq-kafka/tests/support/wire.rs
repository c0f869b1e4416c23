//! A producer that knows nothing of mq or librdkafka: it writes what no client library would.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Stores one record with one header in partition 0 of a topic, by a Produce request of version 3.
pub(crate) async fn produce(address: &str, topic: &str, value: &[u8], header: (&[u8], &[u8])) {
    let batch = batch(&record(value, header));
    let mut body = Vec::new();
    // Produce, its version, the request's number, and a client without a name.
    body.extend([0, 0, 0, 3, 0, 0, 0, 7, 0xff, 0xff]);
    // No transaction; all replicas; 10 s; one topic.
    body.extend([0xff, 0xff, 0xff, 0xff, 0, 0, 0x27, 0x10, 0, 0, 0, 1]);
    body.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
    body.extend(topic.as_bytes());
    body.extend([0, 0, 0, 1, 0, 0, 0, 0]);
    body.extend(size(batch.len()));
    body.extend(batch);
    let mut broker = TcpStream::connect(address).await.unwrap();
    broker.write_all(&size(body.len())).await.unwrap();
    broker.write_all(&body).await.unwrap();
    let length = broker.read_u32().await.unwrap();
    let mut answer = vec![0; length as usize];
    broker.read_exact(&mut answer).await.unwrap();
    // Number, topics, name, partitions, partition; then the error.
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    assert_eq!(answer[at..at + 2], [0, 0], "the broker refused the record");
}

fn size(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap().to_be_bytes()
}

/// Lengths here are small: one byte of zigzag.
fn varint(n: usize) -> u8 {
    assert!(n < 64);
    u8::try_from(n * 2).unwrap()
}

fn record(value: &[u8], (name, text): (&[u8], &[u8])) -> Vec<u8> {
    // Attributes, time and offset within the batch, no key.
    let mut rest = vec![0, 0, 0, 1, varint(value.len())];
    rest.extend(value);
    rest.extend([varint(1), varint(name.len())]);
    rest.extend(name);
    rest.push(varint(text.len()));
    rest.extend(text);
    rest.insert(0, varint(rest.len()));
    rest
}

/// A batch of format 2 with one record.
fn batch(record: &[u8]) -> Vec<u8> {
    let mut checked = Vec::new();
    // Attributes, last offset within the batch; first and last time; no idempotent producer; one record.
    checked.extend([0; 6]);
    checked.extend(1_700_000_000_000_i64.to_be_bytes().repeat(2));
    checked.extend([0xff; 14]);
    checked.extend([0, 0, 0, 1]);
    checked.extend(record);
    let mut batch = vec![0; 8];
    batch.extend(size(checked.len() + 9));
    // No leader epoch; the format.
    batch.extend([0xff, 0xff, 0xff, 0xff, 2]);
    batch.extend(crc32c(&checked).to_be_bytes());
    batch.extend(checked);
    batch
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    })
}

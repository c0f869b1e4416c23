//! Records of the topology registry: exchanges, queues, topics and bindings, where the broker keeps none of its
//! own.
//!
//! A record lies under [`Definition::key`]; the key holds a hash of the definition, so two processes that declare
//! one name differently write two records, both are seen, and the one that was written first wins everywhere.

use bytes::Bytes;

use super::base64;
use super::codec::{self, Reader, damaged, field, field_int, nested, skip};
use super::frame;
use crate::error::Result;
use crate::headers::Headers;
use crate::spec::{
    Binding, Bound, ExchangeKind, ExchangeSpec, HeadersMatch, MatchMode, Overflow, QueueSpec, TopicSpec,
};

const EXCHANGE: u8 = b'x';
const QUEUE: u8 = b'q';
const TOPIC: u8 = b't';
const BINDING: u8 = b'b';
/// The field of the creation id: it is no part of the definition.
const CREATION: u8 = 100;

/// What has been declared.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Definition {
    /// An exchange.
    Exchange(ExchangeSpec),
    /// A queue. Its retry policy is its client's own and is not recorded.
    Queue(QueueSpec),
    /// A topic.
    Topic(TopicSpec),
    /// A binding.
    Binding(Binding),
}

/// A record of the registry.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What has been declared.
    pub definition: Definition,
    /// Tells an object from one of the same name that was deleted before it. Random; 0 for a binding.
    pub creation: u64,
}

impl Definition {
    /// The object it is about, without the hash: `queue/NAME`, `exchange/NAME`, `topic/NAME` or
    /// `binding/EXCHANGE/QUEUE`. Names cannot contain a slash.
    #[must_use]
    pub fn object(&self) -> String {
        match self {
            Self::Exchange(x) => format!("exchange/{}", x.name),
            Self::Queue(q) => format!("queue/{}", q.name),
            Self::Topic(t) => format!("topic/{}", t.name),
            Self::Binding(b) => format!("binding/{}/{}", b.exchange, b.queue),
        }
    }

    /// The key of its record: the object, then the hash as 32 hexadecimal digits.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{:032x}", self.object(), self.hash())
    }

    /// FNV-1a with 128 bits over the record without its creation id.
    #[must_use]
    pub fn hash(&self) -> u128 {
        self.write().iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, byte| {
            (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        })
    }

    fn write(&self) -> Vec<u8> {
        match self {
            Self::Exchange(x) => write_exchange(x),
            Self::Queue(q) => write_queue(q),
            Self::Topic(t) => write_topic(t),
            Self::Binding(b) => write_binding(b),
        }
    }
}

impl Record {
    /// A record of this definition, with a fresh creation id.
    #[must_use]
    pub fn new(definition: Definition) -> Self {
        let creation = if matches!(definition, Definition::Binding(_)) { 0 } else { fastrand::u64(1..) };
        Self { definition, creation }
    }

    /// The record as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.definition.write();
        if self.creation != 0 {
            field_int(&mut out, CREATION, self.creation);
        }
        out
    }

    /// A record from its bytes.
    ///
    /// # Errors
    /// [`InvalidMessage`](crate::Kind::InvalidMessage) if it is damaged or of a newer version.
    pub fn decode(record: impl Into<Bytes>) -> Result<Self> {
        let (kind, fields) = codec::open(record.into())?;
        let mut fields = Fields { fields, creation: 0 };
        let definition = match kind {
            EXCHANGE => Definition::Exchange(read_exchange(&mut fields)?),
            QUEUE => Definition::Queue(read_queue(&mut fields)?),
            TOPIC => Definition::Topic(read_topic(&mut fields)?),
            BINDING => Definition::Binding(read_binding(&mut fields)?),
            _ => return Err(damaged("it is no record of the registry")),
        };
        Ok(Self { definition, creation: fields.creation })
    }

    /// The record as ASCII text, for stores that keep texts only.
    #[must_use]
    pub fn encode_text(&self) -> String {
        let mut text = String::new();
        base64::encode_into(&self.encode(), &mut text);
        text
    }

    /// A record from its text.
    ///
    /// # Errors
    /// [`InvalidMessage`](crate::Kind::InvalidMessage) if it is damaged or of a newer version.
    pub fn decode_text(text: &str) -> Result<Self> {
        if text.len() > base64::encoded_len(codec::MAX_RECORD) {
            return Err(damaged("it is too long"));
        }
        Self::decode(base64::decode(text).ok_or_else(|| damaged("it is not base64"))?)
    }
}

/// The fields of a record, with the one that all kinds share taken out.
struct Fields {
    fields: Reader,
    creation: u64,
}

impl Fields {
    fn next(&mut self) -> Result<Option<(u8, Reader)>> {
        while let Some((number, mut content)) = self.fields.field()? {
            if number != CREATION {
                return Ok(Some((number, content)));
            }
            self.creation = content.rest_int()?;
        }
        Ok(None)
    }
}

fn required(name: String) -> Result<String> {
    if name.is_empty() { Err(damaged("a name is missing")) } else { Ok(name) }
}

fn word<T: Copy>(content: &Reader, all: &[T], text: impl Fn(T) -> &'static str) -> Result<T> {
    let word = content.rest_str()?;
    // An unknown word cannot be skipped: the object would be another one.
    all.iter().copied().find(|t| text(*t) == word).ok_or_else(|| damaged("it has an unknown word"))
}

fn write_exchange(spec: &ExchangeSpec) -> Vec<u8> {
    let mut out = codec::head(EXCHANGE, 0);
    field(&mut out, 1, spec.name.as_bytes());
    field(&mut out, 2, spec.kind.as_str().as_bytes());
    if let Some(alternate) = &spec.alternate {
        field(&mut out, 3, alternate.as_bytes());
    }
    out
}

fn read_exchange(fields: &mut Fields) -> Result<ExchangeSpec> {
    const KINDS: [ExchangeKind; 4] =
        [ExchangeKind::Fanout, ExchangeKind::Direct, ExchangeKind::Topic, ExchangeKind::Headers];
    let mut spec = ExchangeSpec::fanout("");
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => spec.name = content.rest_text()?,
            2 => spec.kind = word(&content, &KINDS, ExchangeKind::as_str)?,
            3 => spec.alternate = Some(content.rest_text()?),
            _ => skip(number)?,
        }
    }
    spec.name = required(spec.name)?;
    Ok(spec)
}

const fn overflow(overflow: Overflow) -> &'static str {
    match overflow {
        Overflow::PushBack => "push-back",
        Overflow::Refuse => "refuse",
    }
}

fn write_queue(spec: &QueueSpec) -> Vec<u8> {
    let mut out = codec::head(QUEUE, 0);
    field(&mut out, 1, spec.name.as_bytes());
    if let Some(bound) = &spec.bound {
        for (number, limit) in [(2, bound.messages), (3, bound.bytes)] {
            if let Some(limit) = limit {
                field_int(&mut out, number, limit);
            }
        }
        field(&mut out, 4, overflow(bound.overflow).as_bytes());
    }
    for (number, flag) in [(5, spec.priority), (6, spec.dead_letter_expired), (7, spec.exclusive)] {
        if flag {
            field_int(&mut out, number, 1);
        }
    }
    if let Some(ttl) = spec.ttl {
        frame::write_span(&mut out, 8, ttl);
    }
    field_int(&mut out, 9, spec.max_deaths.into());
    field_int(&mut out, 10, spec.parallelism.into());
    out
}

fn read_queue(fields: &mut Fields) -> Result<QueueSpec> {
    let mut spec = QueueSpec::new("");
    let none = Bound { messages: None, bytes: None, overflow: Overflow::PushBack };
    while let Some((number, mut content)) = fields.next()? {
        let bound = || spec.bound.unwrap_or(none);
        match number {
            1 => spec.name = content.rest_text()?,
            2 => spec.bound = Some(Bound { messages: Some(content.rest_int()?), ..bound() }),
            3 => spec.bound = Some(Bound { bytes: Some(content.rest_int()?), ..bound() }),
            4 => {
                let overflow = word(&content, &[Overflow::PushBack, Overflow::Refuse], overflow)?;
                spec.bound = Some(Bound { overflow, ..bound() });
            }
            5 => spec.priority = content.rest_int()? != 0,
            6 => spec.dead_letter_expired = content.rest_int()? != 0,
            7 => spec.exclusive = content.rest_int()? != 0,
            8 => spec.ttl = Some(frame::read_span(content)?),
            9 => spec.max_deaths = content.rest_u32()?,
            10 => spec.parallelism = content.rest_u32()?,
            _ => skip(number)?,
        }
    }
    spec.name = required(spec.name)?;
    Ok(spec)
}

fn write_topic(spec: &TopicSpec) -> Vec<u8> {
    let mut out = codec::head(TOPIC, 0);
    field(&mut out, 1, spec.name.as_bytes());
    field_int(&mut out, 2, spec.partitions.into());
    if let Some(replication) = spec.replication {
        field_int(&mut out, 3, replication.into());
    }
    if let Some(retention) = spec.retention {
        frame::write_span(&mut out, 4, retention);
    }
    out
}

fn read_topic(fields: &mut Fields) -> Result<TopicSpec> {
    let mut spec = TopicSpec::new("");
    while let Some((number, mut content)) = fields.next()? {
        match number {
            1 => spec.name = content.rest_text()?,
            2 => spec.partitions = content.rest_u32()?,
            3 => spec.replication = Some(content.rest_u32()?),
            4 => spec.retention = Some(frame::read_span(content)?),
            _ => skip(number)?,
        }
    }
    spec.name = required(spec.name)?;
    Ok(spec)
}

fn write_binding(binding: &Binding) -> Vec<u8> {
    let mut out = codec::head(BINDING, 0);
    field(&mut out, 1, binding.exchange.as_bytes());
    field(&mut out, 2, binding.queue.as_bytes());
    field(&mut out, 3, binding.key.as_bytes());
    let Some(matching) = &binding.matching else { return out };
    field(&mut out, 4, matching.mode.as_str().as_bytes());
    // The order of the demands means nothing, so it must not change the hash.
    let mut values: Vec<_> = matching.values.iter().collect();
    values.sort_by_key(|(name, _)| *name);
    for (name, value) in values {
        nested(&mut out, 5, |out| frame::write_header(name, value, out));
    }
    let mut present: Vec<_> = matching.present.iter().collect();
    present.sort_unstable();
    present.dedup();
    for name in present {
        field(&mut out, 6, name.as_bytes());
    }
    out
}

fn read_binding(fields: &mut Fields) -> Result<Binding> {
    const MODES: [MatchMode; 4] = [MatchMode::All, MatchMode::Any, MatchMode::AllWithX, MatchMode::AnyWithX];
    let mut binding = Binding::new("", "", "");
    let (mut mode, mut values, mut present) = (None, Vec::new(), Vec::new());
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => binding.exchange = content.rest_text()?,
            2 => binding.queue = content.rest_text()?,
            3 => binding.key = content.rest_text()?,
            4 => mode = Some(word(&content, &MODES, MatchMode::as_str)?),
            5 => values.push(frame::read_header(content)?),
            6 => present.push(content.rest_text()?),
            _ => skip(number)?,
        }
    }
    binding.exchange = required(binding.exchange)?;
    binding.queue = required(binding.queue)?;
    binding.matching = mode.map(|mode| HeadersMatch { mode, values: Headers::from_pairs(values), present });
    Ok(binding)
}

//! From the words of the vectors to values of mq, and back.

use std::time::Duration;

use mq_core::driver::{Sort, Target};
use mq_core::protocol::registry::Definition;
use mq_core::{
    Binding, DeathReason, ExchangeKind, ExchangeSpec, HeaderValue, Headers, HeadersMatch, Message, Overflow,
    QueueSpec, Timestamp, TopicSpec,
};
use serde_json::{Map, Value as Json, json};

pub(crate) fn text(v: &Json) -> &str {
    v.as_str().unwrap_or_else(|| panic!("{v} is no text"))
}

pub(crate) fn list(v: &Json) -> &[Json] {
    v.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn hex(bytes: &[u8]) -> Json {
    json!(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
}

pub(crate) fn unhex(v: &Json) -> Vec<u8> {
    let digits = text(v).as_bytes();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

pub(crate) fn header_value(v: &Json) -> HeaderValue {
    let (sort, value) = v.as_object().unwrap().iter().next().unwrap();
    match sort.as_str() {
        "text" => text(value).into(),
        "bytes_hex" => HeaderValue::Bytes(unhex(value).into()),
        "int" => HeaderValue::Int(text(value).parse().unwrap()),
        "float_bits" => HeaderValue::Float(f64::from_bits(u64::from_str_radix(text(value), 16).unwrap())),
        "bool" => HeaderValue::Bool(value.as_bool().unwrap()),
        other => panic!("{other}"),
    }
}

pub(crate) fn show_value(value: &HeaderValue) -> Json {
    match value {
        HeaderValue::Text(t) => json!({ "text": t }),
        HeaderValue::Bytes(b) => json!({ "bytes_hex": hex(b) }),
        HeaderValue::Int(i) => json!({ "int": i.to_string() }),
        HeaderValue::Float(x) => json!({ "float_bits": format!("{:016x}", x.to_bits()) }),
        HeaderValue::Bool(b) => json!({ "bool": b }),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn headers(v: &Json) -> Headers {
    list(v).iter().map(|h| (text(&h["name"]), header_value(&h["value"]))).collect()
}

pub(crate) fn message(v: &Json) -> Message {
    let mut m =
        Message::new(unhex(&v["payload_hex"])).with_id(text(&v["id"])).with_headers(headers(&v["headers"]));
    let time = |name: &str| v[name].as_u64().map(Timestamp::from_millis);
    let string = |v: &Json| v.as_str().map(str::to_owned);
    if v["key_hex"].is_string() {
        m = m.with_key(unhex(&v["key_hex"]));
    }
    if let Some(t) = string(&v["content_type"]) {
        m = m.with_content_type(t);
    }
    if let Some(t) = string(&v["correlation_id"]) {
        m = m.with_correlation_id(t);
    }
    if let Some(t) = string(&v["reply_to"]) {
        m = m.with_reply_to(t);
    }
    if let Some(t) = time("due") {
        m = m.deliver_at(t);
    }
    if let Some(n) = v["priority"].as_u64() {
        m = m.with_priority(u8::try_from(n).unwrap());
    }
    m = m.with_timestamp(time("timestamp").unwrap());
    m.set_expires(time("expires"));
    if let Some(trail) = v["trail"].as_object() {
        let count = |name: &str| u32::try_from(trail[name].as_u64().unwrap()).unwrap();
        let t = m.trail_mut();
        (t.failures, t.replays) = (count("failures"), count("replays"));
        t.first_failure = trail["first_failure"].as_u64().map(Timestamp::from_millis);
        t.reason = trail["reason"].as_str().and_then(DeathReason::parse);
        (t.error, t.source) = (string(&trail["error"]), string(&trail["source"]));
    }
    m
}

pub(crate) fn show(m: &Message) -> Json {
    let mut v = Map::new();
    let mut set = |name: &str, value: Option<Json>| value.map(|value| v.insert(name.into(), value));
    set("id", Some(json!(m.stamped_id().to_string())));
    set("payload_hex", Some(hex(m.payload())));
    set("timestamp", Some(json!(m.timestamp().as_millis())));
    set("key_hex", m.key().map(hex));
    set("content_type", m.content_type().map(|t| json!(t)));
    set("correlation_id", m.correlation_id().map(|t| json!(t)));
    set("reply_to", m.reply_to().map(|t| json!(t)));
    set("due", m.due().map(|t| json!(t.as_millis())));
    set("expires", m.expires().map(|t| json!(t.as_millis())));
    set("priority", (m.priority() != 0).then(|| json!(m.priority())));
    let headers: Vec<_> =
        m.headers().iter().map(|(name, value)| json!({ "name": name, "value": show_value(value) })).collect();
    set("headers", (!headers.is_empty()).then(|| json!(headers)));
    set(
        "trail",
        m.trail().map(|t| {
            json!({
                "failures": t.failures, "replays": t.replays, "error": t.error, "source": t.source,
                "first_failure": t.first_failure.map(Timestamp::as_millis),
                "reason": t.reason.map(DeathReason::as_str),
            })
        }),
    );
    Json::Object(v)
}

pub(crate) fn target(v: &Json) -> Target {
    match text(v).split_once(':').unwrap() {
        ("queue", name) => Target::queue(name),
        (_, name) => Target::topic(name),
    }
}

pub(crate) fn show_target(t: &Target) -> Json {
    assert!(matches!(t.sort, Sort::Queue | Sort::Topic));
    json!(format!("{}:{}", t.sort.as_str(), t.name))
}

pub(crate) fn definition(v: &Json) -> Definition {
    let (sort, v) = v.as_object().unwrap().iter().next().unwrap();
    match sort.as_str() {
        "exchange" => Definition::Exchange(exchange(v)),
        "queue" => Definition::Queue(queue(v)),
        "topic" => Definition::Topic(topic(v)),
        _ => Definition::Binding(binding(v)),
    }
}

fn number(v: &Json) -> Option<u32> {
    v.as_u64().map(|n| u32::try_from(n).unwrap())
}

fn exchange(v: &Json) -> ExchangeSpec {
    let kinds = [ExchangeKind::Fanout, ExchangeKind::Direct, ExchangeKind::Topic, ExchangeKind::Headers];
    let kind = kinds.into_iter().find(|k| k.as_str() == text(&v["kind"])).unwrap();
    let spec = ExchangeSpec::new(text(&v["name"]), kind);
    if let Some(alternate) = v["alternate"].as_str() { spec.with_alternate(alternate) } else { spec }
}

fn queue(v: &Json) -> QueueSpec {
    let mut spec = QueueSpec::new(text(&v["name"]))
        .with_max_deaths(number(&v["max_deaths"]).unwrap())
        .with_parallelism(number(&v["parallelism"]).unwrap());
    let overflow = if v["overflow"] == "refuse" { Overflow::Refuse } else { Overflow::PushBack };
    if let Some(n) = v["max_messages"].as_u64() {
        spec = spec.max_messages(n, overflow);
    }
    if let Some(n) = v["max_bytes"].as_u64() {
        spec = spec.max_bytes(n, overflow);
    }
    spec.ttl = v["ttl_ns"].as_u64().map(Duration::from_nanos);
    let flag = |name: &str| v[name].as_bool().unwrap_or(false);
    (spec.priority, spec.dead_letter_expired) = (flag("priority"), flag("dead_letter_expired"));
    spec.exclusive = flag("exclusive");
    spec
}

fn topic(v: &Json) -> TopicSpec {
    let mut spec = TopicSpec::new(text(&v["name"])).with_partitions(number(&v["partitions"]).unwrap());
    spec.replication = number(&v["replication"]);
    spec.retention = v["retention_ns"].as_u64().map(Duration::from_nanos);
    spec
}

fn binding(v: &Json) -> Binding {
    let mut binding = Binding::new(text(&v["exchange"]), text(&v["queue"]), text(&v["key"]));
    let values = headers(&v["values"]);
    let matching = match v["match"].as_str() {
        None => return binding,
        Some("all") => HeadersMatch::all(values),
        Some("all-with-x") => HeadersMatch::all(values).with_x(),
        Some("any") => HeadersMatch::any(values),
        Some(_) => HeadersMatch::any(values).with_x(),
    };
    binding.matching = Some(list(&v["present"]).iter().fold(matching, |m, name| m.present(text(name))));
    binding
}

/// JSON with one vector a line.
pub(crate) fn pretty(vectors: &Json) -> String {
    let groups = vectors.as_object().unwrap().iter().map(|(name, group)| match group.as_array() {
        None => format!("  {}: {group}", json!(name)),
        Some(list) => {
            let lines: Vec<_> = list.iter().map(|v| format!("    {v}")).collect();
            format!("  {}: [\n{}\n  ]", json!(name), lines.join(",\n"))
        }
    });
    format!("{{\n{}\n}}\n", groups.collect::<Vec<_>>().join(",\n"))
}

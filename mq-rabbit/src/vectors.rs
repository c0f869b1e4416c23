//! The vectors of `docs/protocol-vectors.json` that are RabbitMQ's alone, held against what is shipped: whoever changes
//! one of the two changes what others have built upon.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use mq_core::driver::Target;
use mq_core::protocol::{Route, frame, objects};
use mq_core::{Overflow, QueueSpec, TopicSpec};
use serde_json::{Map, Value as Json, json};

use crate::lease::{Place, Record};
use crate::levels::{self, LEVELS, Round, UNIT};
use crate::note::{self, Note};
use crate::plan::{self, Plan};
use crate::preflight::Version;
use crate::{convert, delay, half, seat, topic};

fn vectors() -> Json {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol-vectors.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text<'a>(v: &'a Json, name: &str) -> &'a str {
    v[name].as_str().unwrap_or_else(|| panic!("no text `{name}` in {v}"))
}

fn number(v: &Json, name: &str) -> u64 {
    v[name].as_u64().unwrap_or_else(|| panic!("no number `{name}` in {v}"))
}

fn small(v: &Json, name: &str) -> u32 {
    u32::try_from(number(v, name)).unwrap()
}

/// What is shipped makes of the meaning of one vector: the members that the file must hold.
fn made(v: &Json, all: &Json) -> Json {
    match text(v, "kind") {
        "name" => json!({ "name": name(v) }),
        "note" => note(v),
        "lease" => lease(v),
        "delay" => waiting(v),
        "level" => level(v),
        "queues" => queues(v),
        "message" => message(v, all),
        other => panic!("a vector of an unknown kind `{other}`"),
    }
}

fn name(v: &Json) -> String {
    let of = |name| text(v, name);
    match of("object") {
        "dead-letter queue" => objects::dlq(of("queue")),
        "companion" => objects::again(of("queue")),
        "note" => note::name_of(of("of")),
        "stream" => topic::stream(of("topic"), small(v, "partition")),
        "offsets" => objects::offset(of("topic"), small(v, "partition"), of("group")),
        "members" => seat::members_queue(of("topic"), of("group")),
        "halves" => objects::half(of("group")),
        "verdicts" => objects::verdict(of("group")),
        "due" => objects::DUE.to_owned(),
        "delay out" => delay::OUT.to_owned(),
        "delay lost" => delay::LOST.to_owned(),
        other => panic!("a name of an unknown object `{other}`"),
    }
}

fn note(v: &Json) -> Json {
    let note = match v["partitions"].as_u64() {
        Some(_) => Note::of_topic(small(v, "partitions"), number(v, "born")),
        None => {
            let mut spec = QueueSpec::new("q");
            if v["ttl_ms"].is_u64() {
                spec = spec.with_ttl(Duration::from_millis(number(v, "ttl_ms")));
            }
            if v["push_back"] == json!(true) {
                spec = spec.max_messages(1, Overflow::PushBack);
            }
            Note::of(&spec)
        }
    };
    let text = note.kept();
    if let Some(text) = &text {
        assert_eq!(Note::parse(text), Some(note), "{text}");
    }
    json!({ "text": text })
}

fn lease(v: &Json) -> Json {
    let owner = || text(v, "owner").to_owned();
    let record = match text(v, "record") {
        "probe" => Record::Probe,
        "claim" => Record::Claim { epoch: number(v, "epoch"), owner: owner() },
        "commit" => Record::Commit {
            epoch: number(v, "epoch"),
            owner: owner(),
            seq: number(v, "seq"),
            place: match (v["offset"].as_u64(), v["time"].as_u64()) {
                (Some(offset), _) => Place::Offset(offset),
                (None, Some(time)) => Place::Time(time),
                (None, None) => Place::First,
            },
            born: number(v, "born"),
        },
        other => panic!("an unknown record `{other}`"),
    };
    let text = record.to_string();
    assert_eq!(Record::parse(text.as_bytes()), Some(record), "{text}");
    json!({ "text": text })
}

fn waiting(v: &Json) -> Json {
    let round = Round::of(Duration::from_millis(number(v, "wait_ms"))).expect("a wait");
    let queue = text(v, "queue");
    let end = if round.last { queue } else { objects::DUE };
    json!({
        "exchange": objects::delay_level(round.level),
        "routing_key": round.key(&levels::address(end)),
        "arrives_by": levels::arrival(end),
        "last": round.last,
    })
}

fn level(v: &Json) -> Json {
    let level = u8::try_from(number(v, "level")).unwrap();
    assert!(level < LEVELS && UNIT == Duration::from_millis(100));
    let next = delay::after(level);
    json!({
        "name": objects::delay_level(level),
        "waits": levels::pattern(level, '1'),
        "passes": levels::pattern(level, '0'),
        "queue": shown(&delay::level_queue(level, &next)),
        "next": next,
    })
}

fn queues(v: &Json) -> Json {
    if let Some(own) = v["own"].as_str() {
        let plan = match own {
            "one reader" => plan::owned(text(v, "name")),
            "halves" => half::half_queue(text(v, "name")),
            _ => plan::own(text(v, "name")),
        };
        return json!({ "queues": [shown(&plan)] });
    }
    if let Some(topic) = v["topic"].as_str() {
        let mut spec = TopicSpec::new(topic);
        if v["retention_ms"].is_u64() {
            spec = spec.with_retention(Duration::from_millis(number(v, "retention_ms")));
        }
        return json!({ "queues": [shown(&topic::stream_plan(&spec, small(v, "partition")))] });
    }
    let mut spec = QueueSpec::new(text(v, "queue"));
    if v["max_deaths"].is_u64() {
        spec = spec.with_max_deaths(small(v, "max_deaths"));
    }
    if v["max_messages"].is_u64() {
        spec = spec.max_messages(number(v, "max_messages"), Overflow::Refuse);
    }
    if v["priority"] == json!(true) {
        spec = spec.with_priority();
    }
    if v["exclusive"] == json!(true) {
        spec = spec.exclusive();
    }
    let version = if text(v, "version") == "3.10" { Version::new(3, 10, 0) } else { Version::new(4, 3, 0) };
    let plans = plan::queue(&spec, version).unwrap();
    json!({ "queues": plans.iter().map(shown).collect::<Vec<_>>() })
}

fn shown(plan: &Plan) -> Json {
    let arguments: Map<_, _> =
        plan.arguments.inner().iter().map(|(name, value)| (name.to_string(), plain(value))).collect();
    let (durable, exclusive) = (plan.options.durable, plan.options.exclusive);
    assert!(!plan.options.auto_delete && !plan.options.passive);
    json!({ "name": plan.name, "durable": durable, "exclusive": exclusive, "arguments": arguments })
}

/// The arguments of queues have three types, which JSON tells apart.
fn plain(value: &AMQPValue) -> Json {
    match value {
        AMQPValue::LongString(text) => json!(text.to_string()),
        AMQPValue::LongLongInt(number) => json!(number),
        AMQPValue::Boolean(yes) => json!(yes),
        other => panic!("an argument of another type: {other:?}"),
    }
}

/// A message, given as in `frames`, and where it goes if it waits first.
fn message(v: &Json, all: &Json) -> Json {
    let frames = all["frames"].as_array().unwrap();
    let framed = frames.iter().find(|f| f["message"] == v["message"]).expect("a message of `frames`");
    let message = frame::decode(unhex(text(framed, "hex"))).unwrap();
    let route = match (v["target"].as_str(), v["exchange"].as_str()) {
        (Some(queue), _) => Some(Route::to(Target::queue(queue))),
        (None, Some(exchange)) => Some(Route::through(exchange, text(v, "routing_key"))),
        (None, None) => None,
    };
    let (properties, headers) = convert::encode(&message, route.as_ref()).unwrap();
    let made = json!({ "properties": shown_properties(&properties), "headers": shown_headers(&headers) });
    let mut delivery = Delivery::mock(1, "".into(), "q".into(), false, message.payload().to_vec());
    delivery.properties = properties.with_headers(headers);
    let (again, route_again) = convert::decode_routed(delivery);
    assert_eq!(route_again, route);
    // Headers come back in another order: AMQP keeps them in a table.
    let (properties, headers) = convert::encode(&again, route.as_ref()).unwrap();
    assert_eq!(shown_properties(&properties), made["properties"]);
    assert_eq!(shown_headers(&headers), made["headers"]);
    made
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn shown_properties(properties: &BasicProperties) -> Json {
    let mut shown = Map::new();
    let texts = [
        ("content_type", properties.content_type()),
        ("correlation_id", properties.correlation_id()),
        ("reply_to", properties.reply_to()),
        ("message_id", properties.message_id()),
    ];
    for (name, value) in texts {
        if let Some(value) = value.as_ref().map(ShortString::as_str) {
            shown.insert(name.into(), json!(value));
        }
    }
    shown.insert("delivery_mode".into(), json!(properties.delivery_mode()));
    shown.insert("priority".into(), json!(properties.priority()));
    shown.insert("timestamp".into(), json!(properties.timestamp()));
    Json::Object(shown)
}

fn shown_headers(headers: &FieldTable) -> Json {
    let header = |(name, value): (&ShortString, &AMQPValue)| (name.to_string(), typed(value));
    Json::Object(headers.inner().iter().map(header).collect())
}

fn typed(value: &AMQPValue) -> Json {
    match value {
        AMQPValue::LongString(text) => json!({ "long_string": text.to_string() }),
        AMQPValue::ByteArray(bytes) => {
            let hex: String = bytes.as_slice().iter().map(|b| format!("{b:02x}")).collect();
            json!({ "byte_array_hex": hex })
        }
        AMQPValue::LongLongInt(number) => json!({ "long_long_int": number.to_string() }),
        AMQPValue::Double(number) => json!({ "double_bits": format!("{:016x}", number.to_bits()) }),
        AMQPValue::Boolean(yes) => json!({ "boolean": yes }),
        other => panic!("mq writes no header of this type: {other:?}"),
    }
}

#[test]
fn the_vectors_hold() {
    let all = vectors();
    let list = all["rabbit"].as_array().unwrap();
    let kinds: std::collections::BTreeSet<_> = list.iter().map(|v| text(v, "kind")).collect();
    assert_eq!(kinds.len(), 7, "{kinds:?}");
    let mut wrong = Vec::new();
    for v in list {
        for (name, made) in made(v, &all).as_object().unwrap() {
            if v.get(name) != Some(made) {
                wrong.push(format!("{v} has another `{name}`: {made}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! `docs/protocol-vectors.json`, checked in both directions: what mq writes is what the file says, and what the
//! file says is read back as what it means.
#![allow(missing_docs)]

mod meaning;

use std::path::PathBuf;

use meaning::*;
use mq_core::Timestamp;
use mq_core::driver::{HalfId, HalfRecord, Verdict};
use mq_core::protocol::acked::Acked;
use mq_core::protocol::envelope::Envelope;
use mq_core::protocol::partition::{murmur2, partition};
use mq_core::protocol::registry::Record;
use mq_core::protocol::{Natives, Parts, Value, frame, half, headers, values};
use serde_json::{Value as Json, json};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol-vectors.json")
}

fn vectors() -> Json {
    serde_json::from_str(&std::fs::read_to_string(path()).unwrap()).unwrap()
}

/// What mq makes of the meaning of one vector: the members that the file must hold.
type Outputs = Vec<(&'static str, Json)>;

fn partition_outputs(v: &Json) -> Outputs {
    let key = unhex(&v["key_hex"]);
    let partitions = u32::try_from(v["partitions"].as_u64().unwrap()).unwrap();
    vec![("murmur2", json!(murmur2(&key).cast_signed())), ("partition", json!(partition(&key, partitions)))]
}

fn value_outputs(v: &Json) -> Outputs {
    let value = header_value(&v["value"]);
    let (value, name) = (Value::from(&value), v["name"].as_str().unwrap());
    let bytes = values::to_bytes(name, &value);
    let printable = values::to_printable(name, &value);
    if !name.starts_with("mq-") {
        assert_eq!(show_value(&values::from_bytes(&bytes).into_owned()), v["value"]);
        assert_eq!(show_value(&values::from_printable(&printable).into_owned()), v["value"]);
    }
    vec![("bytes_hex", hex(&bytes)), ("printable", json!(printable))]
}

fn foreign_outputs(v: &Json) -> Outputs {
    vec![("value", show_value(&values::from_bytes(&unhex(&v["bytes_hex"])).into_owned()))]
}

fn header_outputs(v: &Json) -> Outputs {
    let m = message(&v["message"]);
    let (mut all, mut parts) = (Vec::new(), Parts::new(m.payload().clone()));
    headers::encode(&m, Natives::NONE, &mut |name: &str, value: Value<'_>| {
        let printable = values::to_printable(name, &value);
        all.push(json!({ "name": name, "bytes_hex": hex(&values::to_bytes(name, &value)), "printable": printable }));
        parts.header(name, values::from_printable(&printable));
    });
    assert_eq!(show(&parts.finish()), v["message"]);
    vec![("headers", json!(all))]
}

fn frame_outputs(v: &Json) -> Outputs {
    let bytes = frame::encode(&message(&v["message"])).unwrap();
    assert_eq!(show(&frame::decode(bytes.clone()).unwrap()), v["message"]);
    vec![("hex", hex(&bytes))]
}

fn envelope_outputs(v: &Json) -> Outputs {
    let sends = list(&v["sends"]).iter().map(|s| (target(&s["target"]), message(&s["message"]))).collect();
    let bytes = Envelope { id: text(&v["id"]).into(), sends }.encode().unwrap();
    let again = Envelope::decode(bytes.clone()).unwrap();
    let sends: Vec<_> =
        again.sends.iter().map(|(t, m)| json!({ "target": show_target(t), "message": show(m) })).collect();
    assert_eq!((json!(again.id.to_string()), json!(sends)), (v["id"].clone(), v["sends"].clone()));
    vec![("hex", hex(&bytes))]
}

fn half_record(v: &Json) -> HalfRecord {
    let id = HalfId(text(&v["id"]).into());
    let time = |name: &str| Timestamp::from_millis(v[name].as_u64().unwrap());
    match text(&v["kind"]) {
        "half" => HalfRecord::Half {
            id,
            target: target(&v["target"]),
            message: message(&v["message"]),
            born: time("born"),
            checks: u32::try_from(v["checks"].as_u64().unwrap()).unwrap(),
            next_check: time("next_check"),
        },
        "commit" => HalfRecord::Verdict { id, verdict: Verdict::Commit },
        "rollback" => HalfRecord::Verdict { id, verdict: Verdict::Rollback },
        _ => HalfRecord::Parked { id },
    }
}

fn half_outputs(v: &Json) -> Outputs {
    let record = half_record(v);
    let bytes = half::encode(&record).unwrap();
    let again = half::decode(bytes.clone()).unwrap();
    assert_eq!(half::encode(&again).unwrap(), bytes);
    if let HalfRecord::Half { message, .. } = again {
        assert_eq!(show(&message), v["message"]);
    }
    vec![("hex", hex(&bytes))]
}

fn acked_outputs(v: &Json) -> Outputs {
    let number = |v: &Json| v.as_u64().unwrap();
    let mut map = Acked::new(number(&v["base"]), u64::from_str_radix(text(&v["creation"]), 16).unwrap());
    map.open = v["open"].as_bool().unwrap();
    map.deaths =
        list(&v["deaths"]).iter().map(|d| (number(&d[0]), u32::try_from(number(&d[1])).unwrap())).collect();
    map.runs = list(&v["runs"]).iter().map(|r| number(&r[0])..number(&r[1])).collect();
    let encoded = map.encode(usize::try_from(number(&v["budget"])).unwrap());
    let again = Acked::decode(&encoded.text, map.base).unwrap();
    map.runs.retain(|run| run.end <= encoded.covers);
    assert_eq!(again, map);
    vec![("text", json!(encoded.text)), ("covers", json!(encoded.covers))]
}

fn registry_outputs(v: &Json) -> Outputs {
    let creation = u64::from_str_radix(text(&v["creation"]), 16).unwrap();
    let record = Record { definition: definition(&v["definition"]), creation };
    let bytes = record.encode();
    assert_eq!(Record::decode(bytes.clone()).unwrap(), record);
    assert_eq!(Record::decode_text(&record.encode_text()).unwrap(), record);
    vec![("key", json!(record.definition.key())), ("hex", hex(&bytes)), ("text", json!(record.encode_text()))]
}

type Maker = fn(&Json) -> Outputs;

const GROUPS: [(&str, Maker); 9] = [
    ("partition", partition_outputs),
    ("values", value_outputs),
    ("foreign_values", foreign_outputs),
    ("headers", header_outputs),
    ("frames", frame_outputs),
    ("envelopes", envelope_outputs),
    ("half_records", half_outputs),
    ("acked", acked_outputs),
    ("registry", registry_outputs),
];

#[test]
fn the_vectors_hold() {
    let vectors = vectors();
    for (group, outputs) in GROUPS {
        let list = list(&vectors[group]);
        assert!(!list.is_empty(), "{group}");
        for v in list {
            for (name, made) in outputs(v) {
                assert_eq!(v[name], made, "{group}: {name} of {v}");
            }
        }
    }
}

/// For a new vector: write its meaning into the file, run this, and look at what it adds. A vector that is there
/// already must never change.
#[test]
#[ignore = "fills in the vectors of docs/protocol-vectors.json; run it by hand"]
fn fill_in() {
    let mut vectors = vectors();
    for (group, outputs) in GROUPS {
        for v in vectors[group].as_array_mut().unwrap() {
            for (name, made) in outputs(v) {
                v.as_object_mut().unwrap().insert(name.into(), made);
            }
        }
    }
    std::fs::write(path(), pretty(&vectors)).unwrap();
}
